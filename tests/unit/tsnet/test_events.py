"""The pipe of events, without a node: the tests write in place of Go."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tailbone.tsnet.events import Event, EventPipe


async def test_lines_arrive_whole_and_in_order() -> None:
    """Lines may be written in parts."""
    received: list[Event] = []
    pipe = EventPipe(received.append)
    writer = os.dup(pipe.writing_end)
    pipe.handed_over()
    for part in (b'{"type":"state","sta', b'te":"Starting"}\n{"type":"auth_url","url":"https://x/"}', b"\n"):
        os.write(writer, part)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    os.close(writer)
    await pipe.close(5)
    assert received == [Event(type="state", state="Starting"), Event(type="auth_url", url="https://x/")]


async def test_remaining_events_are_read_before_the_pipe_closes() -> None:
    """The last events of a closed node are received."""
    received: list[Event] = []
    pipe = EventPipe(received.append)
    os.write(pipe.writing_end, b'{"type":"fault","line":"last words"}\n')
    await pipe.close(5)
    assert [event.line for event in received] == ["last words"]


async def test_close_does_not_wait_for_a_hanging_node() -> None:
    """Our end is closed in time although the node keeps its own, and a second close does nothing."""
    pipe = EventPipe(lambda _: None)
    writer = os.dup(pipe.writing_end)
    try:
        async with asyncio.timeout(5):
            await pipe.close(0.01)
            await pipe.close(0.01)
    finally:
        os.close(writer)


async def test_both_ends_are_closed() -> None:
    """The process has as many descriptors as before."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    pipe = EventPipe(lambda _: None)
    await pipe.close(5)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
