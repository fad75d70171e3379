"""RefusalLog: at most one line a second for each error code and peer, however many requests are refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tailbone.process.log import Logger

PAUSE_S: Final = 1.0
"""The shortest time between two lines about one code and peer, in seconds."""


class _Counted:
    """Refusals since the last line."""

    __slots__ = ("count", "level", "line", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.timer = timer
        self.count = 0
        self.level = ""
        self.line: tuple[str, dict[str, Any]] = ("", {})


class RefusalLog:
    """Logs the first refusal at once, and a second later how many more there were (``count``).

    Any peer can be refused thousands of times a second. A line for each refusal would fill the disk, and on a
    full disk no token can be issued.
    """

    def __init__(self, log: Logger) -> None:
        """Write to ``log``."""
        self._log = log
        self._counted: dict[tuple[str, str], _Counted] = {}

    def add(self, code: str, peer: str, level: str, event: str, /, **fields: Any) -> None:
        """Log or count a refusal.

        Args:
            code: the error's code.
            peer: ``ip:port``; connections of one address are counted together.
            level: the method of the logger.
            event: the message.
            fields: the fields of the line; a count has those of the last refusal.
        """
        key = code, peer.rpartition(":")[0]
        counted = self._counted.get(key)
        if counted is not None:
            counted.count += 1
            counted.level, counted.line = level, (event, fields)
            return
        self._counted[key] = _Counted(self._later(key))
        getattr(self._log, level)(event, **fields)

    def close(self) -> None:
        """Log the counts that are still pending."""
        for key in list(self._counted):
            self._counted[key].timer.cancel()
            self._write(key)
            del self._counted[key]

    def _later(self, key: tuple[str, str]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(PAUSE_S, self._flush, key)

    def _flush(self, key: tuple[str, str]) -> None:
        if self._write(key):
            self._counted[key] = _Counted(self._later(key))
        else:
            del self._counted[key]

    def _write(self, key: tuple[str, str]) -> bool:
        counted = self._counted[key]
        if counted.count:
            event, fields = counted.line
            getattr(self._log, counted.level)(event, count=counted.count, **fields)
        return counted.count > 0
