"""No token without its line, whatever standard output is."""

from __future__ import annotations

from itertools import cycle

from tests.endurance.lines import KINDS, measure


def test_lines_equal_tokens() -> None:
    """A thousand requests to a server with each output: its log has the lines of the tokens that arrived."""
    counts = {count.kind: count for count in measure(zip(KINDS, cycle([True, False]), strict=False), 1000)}
    assert len(counts) == len(KINDS)
    assert [count for count in counts.values() if not count.holds] == []
    assert [len(counts[kind].tokens) for kind in ("Output", "Rotated", "ClosedPipe", "FullDevice")] == [
        1000,
        1000,
        500,
        0,
    ]
    for kind in ("FullForAWhile", "UnreadPipe", "UnreadNonBlockingPipe"):
        assert 500 < len(counts[kind].tokens) < 1000
        assert counts[kind].refused == 1000 - len(counts[kind].tokens)
