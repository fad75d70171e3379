"""KeyState: what is kept about a key, and the phase that follows."""

from __future__ import annotations

import pytest

from tailbone.errors import KeyFileError
from tailbone.keys.record import KeyState, Phase

NOW = 1000.0
NEW = KeyState(thumbprint="t", origin="first", since=900.0)


def state(**more: float | str) -> KeyState:
    return KeyState(thumbprint="t", origin="first", since=900.0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kept", "phase"),
    [
        (NEW, Phase.PENDING),
        (state(place="here", signs_from=1000.1), Phase.PUBLISHED),
        (state(place="here", signs_from=1000.0), Phase.ACTIVE),
        (state(place="here", signs_from=2000.0, signing_since=1500.0), Phase.ACTIVE),
        (state(place="here", signs_from=1.0, signing_since=1.0, ends_at=5.0), Phase.RETIRING),
        (state(place="elsewhere", signs_from=1.0, signing_since=1.0, ends_at=5.0), Phase.PENDING),
        (state(refused="here"), Phase.UNPUBLISHED),
        (state(refused="elsewhere"), Phase.PENDING),
        (state(place="here", signs_from=1.0, removing="delete"), Phase.REMOVED),
    ],
)
def test_the_phase_follows_from_what_is_kept(kept: KeyState, phase: Phase) -> None:
    """A confirmation for another place counts for nothing; having signed counts more than the clock."""
    assert kept.phase("here", NOW) is phase


def test_what_is_written_is_read() -> None:
    """Every member."""
    kept = state(
        place="here", confirmed_at=1.5, signs_from=2.5, signing_since=3.5, expiry_s=60.0, ends_at=9.5
    )
    assert KeyState.from_json(kept.to_json()) == kept


def test_a_member_of_a_later_version_is_no_fault() -> None:
    """A folder goes on working when its server is replaced by an older one."""
    assert KeyState.from_json(NEW.to_json().replace(b"{", b'{"later": 1,', 1)) == NEW


@pytest.mark.parametrize("data", [b"", b"{}", b"null", NEW.to_json()[:-9], b'{"thumbprint": 1}', b"\xff"])
def test_what_is_no_state_is_an_error(data: bytes) -> None:
    """And not a state with other values."""
    with pytest.raises(KeyFileError):
        KeyState.from_json(data)
