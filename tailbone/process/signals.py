"""Signals: the first requests an orderly shutdown, the second ends the process immediately."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from tailbone.process.log import get_logger

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

    def __init__(self, *, within_s: float = math.inf) -> None:
        """Make one that has not been asked.

        Args:
            within_s: how long the orderly shutdown may take, in seconds; then the process ends as by a second
                signal. A thread that waits for a dead disk can be neither cancelled nor joined.
        """
        self._within_s = within_s
        self.asked = asyncio.Event()
        self.signal: signal.Signals | None = None
        self.before_exit: list[Callable[[], object]] = []

    def received(self, number: int) -> None:
        """Handle a signal."""
        if self.signal is not None:
            self._exit(number)
        self.signal = signal.Signals(number)
        self.asked.set()
        if self._within_s < math.inf:
            asyncio.get_running_loop().call_later(self._within_s, self._give_up, number)

    def _give_up(self, number: int) -> None:
        get_logger().error("the shutdown took too long: ending at once", limit_s=self._within_s)
        self._exit(number)

    def _exit(self, number: int) -> None:
        for call in reversed(self.before_exit):
            call()
        os._exit(128 + number)

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
def exit_on_signals() -> Iterator[None]:
    """Exit with 0 on SIGINT or SIGTERM, before there is an event loop; restore the handlers at the end.

    The first process of a container would not end otherwise: it has no default actions (pid_namespaces(7)).
    """

    stopped = False

    def received(_number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True
        raise SystemExit(0)

    before = {number: signal.signal(number, received) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if stopped:  # not in the handler: it may have interrupted another line, which holds the log's lock
            get_logger().info("stopped before it was up")


@contextmanager
def stop_on_signals(*, within_s: float = math.inf) -> Iterator[Stop]:
    """Handle SIGINT, SIGTERM and SIGHUP on the running loop; restore the previous handlers at the end.

    Args:
        within_s: see ``Stop``.
    """
    loop = asyncio.get_running_loop()
    stop = Stop(within_s=within_s)
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
