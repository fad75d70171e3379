"""Readers of a token file that is renewed every second, for a moment."""

from __future__ import annotations

from tests.endurance.readers import run


def test_readers_always_see_a_good_token() -> None:
    """Fifty of them; .ci/run does it for two minutes."""
    report = run(6)
    assert report.holds, report.line()
