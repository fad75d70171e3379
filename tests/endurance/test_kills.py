"""SIGKILL at random moments, some times."""

from __future__ import annotations

from tests.endurance.kills import run


def test_a_kill_costs_nothing() -> None:
    """Folder, JWKS and all tokens are right after each kill, and the next start goes on."""
    report = run(3, 1, print)
    assert report.faults == []
    assert (report.kills, report.early) == (3, 1)
    assert report.changes >= 2
    assert report.tokens > 0
