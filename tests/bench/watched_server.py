"""``tailbone`` with a watched event loop: each block of 2 ms or more is written as a line to a file.

BENCH_BLOCKS names the file. A timer of the loop fires every millisecond; if it fires late, something held the
loop, the GIL or the processor. The processor time of the loop's thread shows which.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final

import msgspec

VARIABLE: Final = "BENCH_BLOCKS"
_EVERY_S: Final = 0.001
_REPORTED_S: Final = 0.002


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A span in which the event loop did not run its timer.

    Attributes:
        ended: Unix time, seconds.
        wall_ms: its length.
        cpu_ms: how much of it the loop's own thread used the processor.
    """

    ended: float
    wall_ms: float
    cpu_ms: float


class Watch:
    """The timer that measures the blocks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path) -> None:
        """Watch ``loop``, and write to ``path``."""
        self._loop = loop
        self._file = path.open("ab", buffering=0)
        self._wall, self._cpu = time.perf_counter(), time.thread_time()

    def beat(self) -> None:
        """Measure how late the timer is, and schedule it again."""
        late = time.perf_counter() - self._wall - _EVERY_S
        if late >= _REPORTED_S:
            worked = time.thread_time() - self._cpu
            block = Block(ended=time.time(), wall_ms=late * 1000, cpu_ms=worked * 1000)
            self._file.write(msgspec.json.encode(block) + b"\n")
        self._wall, self._cpu = time.perf_counter(), time.thread_time()
        self._loop.call_later(_EVERY_S, self.beat)


def read_blocks(path: Path, began: float, ended: float) -> list[Block]:
    """Return the blocks of a span of Unix time."""
    decode = msgspec.json.Decoder(Block).decode
    blocks = [decode(line) for line in path.read_bytes().splitlines()]
    return [block for block in blocks if began <= block.ended <= ended]


def main() -> None:
    """Run ``tailbone``, with every new event loop watched."""
    make = asyncio.events.new_event_loop

    def make_watched() -> asyncio.AbstractEventLoop:
        loop = make()
        loop.call_soon(Watch(loop, Path(os.environ[VARIABLE])).beat)
        return loop

    asyncio.events.new_event_loop = make_watched

    from tailbone.__main__ import main as tailbone

    tailbone()


if __name__ == "__main__":
    main()
