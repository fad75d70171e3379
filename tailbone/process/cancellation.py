"""Calls that block, in threads: what was begun is over before its caller goes on, also when cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Make a short call in a thread, as ``asyncio.to_thread``, and leave it only when the call is over.

    A thread cannot be cancelled. Without this wait, whoever cleans up after a cancellation would do so beside
    the call: give back a lock that the thread is about to take, or that it still writes under.

    Raises:
        CancelledError: the caller was cancelled; an error of the call is its cause.
        Exception: whatever the call raises.
    """
    calling = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(calling)
    except asyncio.CancelledError as cancelled:
        while not calling.done():
            try:
                await asyncio.wait([calling])
            except asyncio.CancelledError:
                continue  # one is enough, and raised below
        raise cancelled from calling.exception()
