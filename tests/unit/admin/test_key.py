"""The Key message, and what removing a key means."""

from __future__ import annotations

from harness.admin import info
from hypothesis import given
from hypothesis import strategies as st

from tailbone.admin._proto import admin_pb2 as pb
from tailbone.admin.key import can_sign, key_message


@given(kid=st.text(), created=st.none() | st.integers() | st.floats(), when=st.none() | st.floats())
def test_any_key_fits_into_a_message(kid: str, created: float | None, when: float | None) -> None:
    """Protobuf can encode any kid and time of a foreign key; a time beyond the calendar is 0."""
    change = None if when is None else ("signs", when)
    sent = key_message(info(kid, created_at=created, next_change=change))
    read = pb.Key.FromString(sent.SerializeToString())
    assert 0 <= read.created_at <= 253_402_300_799
    assert 0 <= read.next_change_at <= 253_402_300_799


def test_an_unpaired_surrogate_is_escaped() -> None:
    """A kid that UTF-8 cannot encode is sent with an escape."""
    assert key_message(info("a\ud800")).key_id == "a\\ud800"


def test_which_keys_can_sign() -> None:
    """Own keys that are published, active or retiring could sign if all others were removed."""
    states = ["", "pending", "published", "active", "retiring", "removed", "unpublished"]
    assert [state for state in states if can_sign(pb.Key(key_id="k", state=state))] == [
        "",
        "published",
        "active",
        "retiring",
    ]
    assert can_sign(pb.Key(key_id="k", state="active", foreign=True)) is False
