"""The Key message, and what removing a key means."""

from __future__ import annotations

from harness.admin import info
from hypothesis import given
from hypothesis import strategies as st

from tailbone.admin._proto import admin_pb2 as pb
from tailbone.admin.key import can_sign, key_message


@given(kid=st.text(), created=st.none() | st.integers() | st.floats(), when=st.none() | st.floats())
def test_no_odd_key_breaks_the_list(kid: str, created: float | None, when: float | None) -> None:
    """Whatever kid and times a foreign key has, protobuf carries it; a time that no calendar has is 0."""
    change = None if when is None else ("signs", when)
    sent = key_message(info(kid, created_at=created, next_change=change))
    read = pb.Key.FromString(sent.SerializeToString())
    assert 0 <= read.created_at <= 253_402_300_799
    assert 0 <= read.next_change_at <= 253_402_300_799


def test_half_a_surrogate_pair_is_spelt_out() -> None:
    """A kid that UTF-8 cannot carry is sent with an escape in the place."""
    assert key_message(info("a\ud800")).key_id == "a\\ud800"


def test_a_key_that_waits_can_sign() -> None:
    """What could sign if all others went: published, active and retiring own keys, and no others."""
    states = ["", "pending", "published", "active", "retiring", "removed", "unpublished"]
    assert [state for state in states if can_sign(pb.Key(key_id="k", state=state))] == [
        "",
        "published",
        "active",
        "retiring",
    ]
    assert can_sign(pb.Key(key_id="k", state="active", foreign=True)) is False
