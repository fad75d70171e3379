"""The pages of the verifiers show what doctor prints."""

from __future__ import annotations

import pytest

from docs.verifiers import BEGIN, DOCS, refresh
from tailbone.cli.doctor import TARGETS as NAMES
from tailbone.doctor.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_page_has_doctors_texts(name: str) -> None:
    """Texts, and what to replace in them, word for word."""
    page = (DOCS / f"{name}.md").read_text()
    assert BEGIN in page
    assert f"tailbone doctor --for {name}\n" in page
    assert refresh(name, page) == page, "run: uv run python -m tests.docs.verifiers"


@pytest.mark.parametrize("name", TARGETS)
def test_the_readme_links_the_page(name: str) -> None:
    """Each verifier has its page."""
    assert f"(docs/{name}.md)" in (DOCS.parent / "README.md").read_text()


def test_the_command_knows_the_same_verifiers() -> None:
    """Their names are written twice, so that the command's help loads nothing."""
    assert list(NAMES) == list(TARGETS)
