"""kill -9 at every write of every change: the next start finishes or undoes what it finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from harness.keys import START
from harness.kills import SCENARIOS

ROOT = Path(__file__).parents[3]
FIRST = f"tb-{START:.0f}"


@cache
def walk(scenario: str) -> list[dict[str, Any]]:
    """A report for each kill, the last one of the run that came to its end."""
    # In memory where there is such a place: what a kill leaves does not depend on the disk.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "harness.kills", scenario, folder],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_kill_at_any_point_costs_nothing(scenario: str) -> None:
    """No token was signed by an unpublished key, no published key was lost, nothing waits for ever."""
    reports = walk(scenario)
    assert [report["status"] for report in reports] == [-9] * (len(reports) - 1) + [0]
    assert len(reports) > 10
    asked_to_go = (
        {FIRST} if scenario in ("remove", "remove the last", "revoked elsewhere", "housekeeping") else set()
    )
    for report in reports:
        published, private = set(report["published"]), set(report["private"])
        assert report["violations"] == [], report
        assert report["signing"] in published, report
        assert report["reasons"] == [], report
        if scenario != "rotate and prune":
            assert set(report["found"]) - published <= asked_to_go, report
        assert private <= published, report
        assert set(report["states"]) == published, report
        assert set(report["states"].values()) <= {"active", "published", "retiring"}, report
        assert report["temporary"] == [], report
        assert report["faults"] == [], report
        assert report["marks"] == [], report


def test_a_remove_is_finished_or_never_began() -> None:
    """Either the key is gone from folder and document, or it is in both."""
    reports = walk("remove")
    seen = {(FIRST in report["published"], FIRST in report["private"]) for report in reports}
    assert seen == {(True, True), (False, False)}


def test_a_generate_is_finished_or_undone() -> None:
    """A pair without its published half is gone a minute later."""
    reports = walk("generate")
    assert {len(report["published"]) for report in reports} == {1, 2}
    assert all(report["private"] == sorted(report["published"]) for report in reports)
