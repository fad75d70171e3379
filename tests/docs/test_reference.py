"""The tables that are written by hand have a row for everything that the program has."""

from __future__ import annotations

import re

import msgspec

from docs.pages import DOCS
from tailbone.admin.access import Role
from tailbone.forward_auth import FIELDS
from tailbone.keys.record import Phase
from tailbone.server.routes import ROUTES
from tailbone.token.grants import AWS_TAGS_CLAIM, OWN_CLAIMS, _Object


def first_cells(page: str, heading: str) -> set[str]:
    """Return the words in the first column of the table with that heading, without backticks."""
    text = (DOCS / page).read_text()
    table = text.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    return {word for cell in cells for word in re.findall(r"[^`,\s]+", cell)}


def test_paths() -> None:
    """docs/http.md has each path of the issuer."""
    documented = {word.partition("?")[0] for word in first_cells("http.md", "request") if word[0] == "/"}
    assert documented == set(ROUTES)


def test_claims() -> None:
    """docs/concepts.md has each claim that tailbone writes, but those that only grants give."""
    assert first_cells("concepts.md", "claim") == OWN_CLAIMS - {"groups", "scope", AWS_TAGS_CLAIM}


def test_members_of_a_rule() -> None:
    """docs/grants.md has each member."""
    names = {field.encode_name for field in msgspec.structs.fields(_Object)}
    assert first_cells("grants.md", "member") == names


def test_states_of_a_key() -> None:
    """docs/keys.md has each state that a list may show."""
    assert first_cells("keys.md", "state") == {phase.value for phase in Phase} | {"foreign", "faulty"}


def test_roles() -> None:
    """docs/keys.md has each role of the admin API."""
    text = (DOCS / "keys.md").read_text()
    assert all(f"`{role.word}`" in text for role in Role)


def test_fields_of_forward_auth() -> None:
    """docs/forward-auth.md has each field."""
    assert first_cells("forward-auth.md", "field") == {f"X-Tailbone-{name}" for name in FIELDS}
