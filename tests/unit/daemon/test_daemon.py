"""Facts about the daemon that need no tailnet."""

from __future__ import annotations

import asyncio

import pytest

from tailbone.config.load import load
from tailbone.daemon.daemon import Daemon, together


async def give(value: str) -> str:
    await asyncio.sleep(0)
    return value


async def fail(error: Exception) -> str:
    await asyncio.sleep(0)
    raise error


async def test_together_gives_both_results() -> None:
    """In order."""
    assert await together(give("a"), give("b")) == ("a", "b")


async def test_together_raises_the_failure_itself() -> None:
    """Not a group of one; the other is cancelled and has ended before."""
    ended = asyncio.Event()

    async def long() -> str:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return ""

    with pytest.raises(ValueError, match="first"):
        await together(fail(ValueError("first")), long())
    assert ended.is_set()


async def test_together_can_be_cancelled() -> None:
    """Then both are."""
    both = asyncio.ensure_future(together(asyncio.sleep(60), asyncio.sleep(60)))
    await asyncio.sleep(0)
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both


async def test_a_daemon_that_has_not_started_is_not_ready() -> None:
    """It says so, and can be left."""
    async with Daemon(load({}, environ={})) as daemon:
        assert daemon.reasons() == ["server: starting"]
