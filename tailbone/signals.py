"""SIGINT and SIGTERM: the first one asks for an orderly end, the second one ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

_T = TypeVar("_T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether the process was asked to end.

    Attributes:
        asked: set by the first signal.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    def ask(self) -> None:
        """Ask for the end, as a signal would."""
        self.asked.set()

    async def unless(self, work: Coroutine[object, object, _T]) -> _T | None:
        """Await ``work``, or cancel it when the process is asked to end.

        Returns:
            The result of ``work``; None where it was cancelled.
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
    """Handle both signals on the running loop; what handled them before is restored at the end."""
    loop = asyncio.get_running_loop()
    stop = Stop()

    def received(number: int) -> None:
        if stop.asked.is_set():
            os._exit(128 + number)
        stop.ask()

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        loop.add_signal_handler(number, received, number)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
