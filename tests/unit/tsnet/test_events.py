"""Facts about the pipe of events, without a node: the test writes what Go would."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tailbone.tsnet.events import Event, EventPipe


async def test_lines_arrive_whole_and_in_order() -> None:
    """However they are cut on their way."""
    heard: list[Event] = []
    pipe = EventPipe(heard.append)
    writer = os.dup(pipe.writing_end)
    pipe.handed_over()
    for part in (b'{"type":"state","sta', b'te":"Starting"}\n{"type":"auth_url","url":"https://x/"}', b"\n"):
        os.write(writer, part)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    os.close(writer)
    await pipe.close(5)
    assert heard == [Event(type="state", state="Starting"), Event(type="auth_url", url="https://x/")]


async def test_what_is_in_the_pipe_is_read_before_it_closes() -> None:
    """The last words of a node that has closed are heard."""
    heard: list[Event] = []
    pipe = EventPipe(heard.append)
    os.write(pipe.writing_end, b'{"type":"fault","line":"last words"}\n')
    await pipe.close(5)
    assert [event.line for event in heard] == ["last words"]


async def test_close_does_not_wait_for_a_node_that_hangs() -> None:
    """It holds its end for ever; ours is closed in time, and a second close does nothing."""
    pipe = EventPipe(lambda _: None)
    writer = os.dup(pipe.writing_end)
    try:
        async with asyncio.timeout(5):
            await pipe.close(0.01)
            await pipe.close(0.01)
    finally:
        os.close(writer)


async def test_both_ends_are_closed() -> None:
    """No descriptor is left."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    pipe = EventPipe(lambda _: None)
    await pipe.close(5)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
