"""Signals: the first requests an orderly shutdown, the second ends the process immediately."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

_T = TypeVar("_T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Records whether the process was asked to stop.

    Attributes:
        asked: set by the first signal.
        signal: that signal; None before.
        before_exit: functions that a second signal calls, the last one first, before it ends the process;
            they must neither block nor raise.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.signal: signal.Signals | None = None
        self.before_exit: list[Callable[[], object]] = []

    def received(self, number: int) -> None:
        """Handle a signal."""
        if self.signal is not None:
            for call in reversed(self.before_exit):
                call()
            os._exit(128 + number)
        self.signal = signal.Signals(number)
        self.asked.set()

    async def run_until_stopped(self, work: Coroutine[object, object, _T]) -> _T | None:
        """Await ``work``, or cancel it when the process is asked to stop.

        Returns:
            The result of ``work``; None if it was cancelled.
        """
        task = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self.asked.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        return None if task.cancelled() else task.result()


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Handle SIGINT, SIGTERM and SIGHUP on the running loop; restore the previous handlers at the end."""
    loop = asyncio.get_running_loop()
    stop = Stop()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        # nohup ignores SIGHUP so that the process outlives its terminal.
        del before[signal.SIGHUP]
    for number in before:
        loop.add_signal_handler(number, stop.received, number)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
