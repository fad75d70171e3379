"""RefusalLog: how many lines refusals make."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tailbone.server import refusal_log
from tailbone.server.refusal_log import RefusalLog

if TYPE_CHECKING:
    import pytest
    from conftest import World


async def test_refusals_of_one_code_and_address_are_one_line_and_a_count(world: World) -> None:
    """Whatever the port; other codes and other addresses have lines of their own."""
    log = world.log
    refusals = RefusalLog(log)
    for port in (1, 2, 3):
        refusals.add("info", "request refused", code="wrong_host", peer=f"100.64.0.7:{port}", status=421)
    refusals.add("info", "request refused", code="not_found", peer="100.64.0.7:1", status=404)
    refusals.add("info", "request refused", code="wrong_host", peer="100.64.0.8:1", status=421)
    assert [(line.fields["code"], line.fields["peer"]) for line in log.lines] == [
        ("wrong_host", "100.64.0.7:1"),
        ("not_found", "100.64.0.7:1"),
        ("wrong_host", "100.64.0.8:1"),
    ]
    refusals.close()
    assert [line.fields for line in log.lines[3:]] == [
        {"code": "wrong_host", "peer": "100.64.0.7:3", "status": 421, "count": 2}
    ]


async def test_the_count_is_logged_after_the_pause(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second after the first line."""
    assert refusal_log.PAUSE_S == 1.0
    monkeypatch.setattr(refusal_log, "PAUSE_S", 0.01)
    log = world.log
    refusals = RefusalLog(log)
    for _ in range(2):
        refusals.add("info", "request refused", code="wrong_host", peer="100.64.0.7:1")
    async with asyncio.timeout(5):
        while len(log.lines) < 2:
            await asyncio.sleep(0.005)
    assert [line.fields.get("count") for line in log.lines] == [None, 1]
    refusals.close()
