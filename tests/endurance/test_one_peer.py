"""One peer against all others, each for a moment."""

from __future__ import annotations

from tests.endurance.one_peer import NOBODY, measure
from tests.endurance.peers import PEERS


def test_no_peer_takes_a_token_from_another() -> None:
    """The honest caller gets a token for each of its requests, and each peer did something."""
    rows = list(measure([NOBODY, *PEERS], 0.2))
    assert [(row.peer, row.honest.failed) for row in rows] == [(name, {}) for name in (NOBODY, *PEERS)]
    assert all(row.honest.tokens == 8 for row in rows)
    assert len(PEERS) >= 15
