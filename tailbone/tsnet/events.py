"""Events of a native node: JSON lines on a pipe, on which Go never blocks."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a node.

    Attributes:
        type: ``state`` (see ``state``), ``self`` (the node's current ``dns_name`` and ``addresses``),
            ``auth_url`` (a person must open ``url``), ``log`` (a ``line`` of tsnet's own log),
            ``control_unreachable`` (``url``), ``node_deleted`` (by the control server; repeated with each
            poll), ``warning`` (a ``line`` for the operator), ``fault`` (a ``line`` about a fault in the
            native library that ended one connection).
    """

    type: str
    state: str = ""
    url: str = ""
    line: str = ""
    dns_name: str = ""
    addresses: tuple[str, ...] = ()


class EventPipe:
    """The pipe of a node's events, read on the running event loop."""

    def __init__(self, handle: Callable[[Event], None]) -> None:
        self._handle = handle
        self._rest = b""
        self._decode = msgspec.json.Decoder(Event).decode
        self._loop = asyncio.get_running_loop()
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._ended = asyncio.Event()
        self._loop.add_reader(self._read, self._readable)

    @property
    def writing_end(self) -> int:
        """The descriptor for Go, which duplicates it."""
        return self._write

    def handed_over(self) -> None:
        """Close our copy of the writing end, so that the pipe ends when Go closes its own."""
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def _readable(self) -> None:
        try:
            chunk = os.read(self._read, 1 << 16)
        except BlockingIOError:
            return
        if not chunk:
            self._loop.remove_reader(self._read)
            self._ended.set()
            return
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._handle(self._decode(line))

    async def close(self, timeout_s: float) -> None:
        """Read the remaining events for at most ``timeout_s`` seconds, then close both ends; idempotent."""
        self.handed_over()
        if self._read < 0:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            # The node did not close its end in time; its further events do not matter.
            self._loop.remove_reader(self._read)
        finally:
            self._loop.remove_reader(self._read)
            os.close(self._read)
            self._read = -1
