"""Keys as text: what a person reads of a key's state, age and next change."""

from __future__ import annotations

import pytest

from tailbone.admin._proto.admin_pb2 import GetStatusResponse, Key
from tailbone.cli.key_table import row, status_lines

NOW = 1795518230.0


@pytest.mark.parametrize(
    ("what", "at", "text"),
    [
        ("signs", NOW + 250, "signs in 4m10s"),
        ("removed", NOW + 1320, "removed in 22m"),
        ("signs", NOW - 3, "signs now"),
        ("published", 0, "published soon"),
        ("", 0, ""),
    ],
)
def test_next_change(what: str, at: float, text: str) -> None:
    """The next change is shown with the time until it."""
    key = Key(key_id="k", state="published", next_change=what, next_change_at=int(at))
    assert row(key, NOW)[4] == text


def test_foreign_keys_are_marked_with_their_age() -> None:
    """A foreign key's state says so, and how old it is; one whose time is unknown has no age."""
    key = Key(key_id="k", foreign=True, created_at=int(NOW) - 86400 * 12)
    assert row(key, NOW)[2:4] == ("foreign, 12d old", "2026-11-12 11:03:50Z")
    assert row(Key(key_id="k", foreign=True), NOW)[2:4] == ("foreign", "unknown")


@pytest.mark.parametrize("at", [253402300800, 999999999999, 2**63 - 1, -(2**63)])
def test_a_time_beyond_the_calendar_is_unknown(at: int) -> None:
    """A foreign kid or an odd server can claim any time."""
    assert row(Key(key_id="k", foreign=True, created_at=at), NOW)[2:4] == ("foreign", "unknown")
    assert "up since  unknown" in status_lines(GetStatusResponse(started_at=at))


def test_keys_that_cannot_be_used() -> None:
    """A key of the folder that cannot be used is shown as such, with the reason."""
    assert row(Key(key_id="k", state="faulty", fault="the public half is missing"), NOW) == (
        "k",
        "",
        "faulty",
        "unknown",
        "the public half is missing",
    )


def test_control_characters_of_a_kid_are_escaped() -> None:
    """A kid cannot control the terminal."""
    assert row(Key(key_id="a\x1b[2J\nb"), NOW)[0] == "a\\x1b[2J\\nb"
