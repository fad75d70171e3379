"""Tokens while everything around the server fails, for a moment."""

from __future__ import annotations

from tests.endurance.million import Pace, run


def test_no_fault_around_the_server_costs_a_token() -> None:
    """Every request gets its token; every token verifies and has its line."""
    report = run(3000, Pace(phase_s=0.5, rotate_s=2, max_age_s=1, expiry_s=4), 1, print)
    assert (report.failed, dict(report.load.faults)) == ({}, {})
    assert (report.load.tokens, report.lines, report.exit_code) == (3000, 3000, 0)
    assert report.phases["control paused"] >= 1
    assert report.s3_calls > 0
