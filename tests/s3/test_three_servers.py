"""Three servers change their keys in one bucket at once; tests/bench/changes.py makes a thousand changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from harness import s3
from harness.changes import change_keys

from tailbone.jwks.s3 import S3Store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(400)
async def test_200_changes_by_three_servers_lose_nothing(tmp_path: Path, behind: str) -> None:
    """Exactly the expected keys are published, and every token verified when it was issued."""
    report = await change_keys(tmp_path, servers=3, changes=200, make_store=lambda: S3Store(behind))
    assert (report.unverified, report.missing, report.surplus) == ([], [], [])
    assert report.failed == {}
    assert report.changes == 200
    assert report.tokens > 200
    assert report.rotated > 0


@pytest.mark.s3
@pytest.mark.timeout(400)
async def test_changes_on_a_server_that_makes_its_own_races(
    tmp_path: Path, versitygw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no proxy that serialises the writes."""
    for name, value in s3.environment(versitygw).items():
        monkeypatch.setenv(name, value)
    await asyncio.to_thread(s3.make_bucket, versitygw, "three-servers")
    report = await change_keys(tmp_path, servers=3, changes=60, make_store=lambda: S3Store("three-servers"))
    assert (report.unverified, report.missing, report.surplus, report.failed) == ([], [], [], {})
