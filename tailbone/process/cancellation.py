"""Cancellation: work that must finish, work that one failure cancels, and a close that happens once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

_A = TypeVar("_A")
_B = TypeVar("_B")
_P = ParamSpec("_P")
_T = TypeVar("_T")


async def finish(work: Awaitable[_T]) -> _T:
    """Await ``work`` to its end, even when cancelled: the cancellation is raised afterwards.

    Raises:
        CancelledError: the caller was cancelled; an error of the work is its cause.
        Exception: what the work raises.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()


async def in_thread(call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Make a short call in a thread, as ``asyncio.to_thread`` does, and return only when it is over.

    A thread cannot be cancelled. Without this wait, the clean-up after a cancellation would run beside the
    call: it could release a lock that the thread is about to take, or still writes under.

    Raises:
        CancelledError: the caller was cancelled; an error of the call is its cause.
        Exception: what the call raises.
    """
    return await finish(asyncio.to_thread(call, *args, **kwargs))


@overload
async def gather_or_cancel(
    first: Coroutine[Any, Any, _A], second: Coroutine[Any, Any, _B], /
) -> tuple[_A, _B]: ...
@overload
async def gather_or_cancel(*work: Coroutine[Any, Any, _T]) -> tuple[_T, ...]: ...
async def gather_or_cancel(*work: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """Await all of ``work`` at once; when one fails, cancel the others and wait for their end.

    Returns:
        The results, in order.

    Raises:
        Exception: what the first one to fail raises, by itself and not in a group.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return tuple(task.result() for task in tasks)


class Closing:
    """A close that happens once.

    Every caller waits for the same close, and a cancelled caller does not interrupt it.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether the close was asked for."""
        return self._task is not None

    async def once(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``close`` on the first call; wait for its end on every call.

        Raises:
            Exception: what the close raises, for every caller.
        """
        if self._task is None:
            self._task = asyncio.ensure_future(close())
        await asyncio.shield(self._task)
