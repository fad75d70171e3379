"""Wait for a condition, with a deadline."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

_PAUSE_S = 0.005


def until(
    condition: Callable[[], _T | None],
    what: str,
    *,
    timeout_s: float = 10.0,
    shows: Callable[[], object] = str,
) -> _T:
    """Wait until ``condition`` returns a true value, and return it.

    Args:
        condition: called repeatedly.
        what: describes the condition in the failure.
        timeout_s: how long it may take, in seconds.
        shows: returns further facts for the failure.

    Raises:
        AssertionError: the condition was not true in time.
    """
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s:g} s: {what} {shows()}")
        time.sleep(_PAUSE_S)


async def until_async(condition: Callable[[], object], *, timeout_s: float = 10.0) -> None:
    """Let other tasks run until ``condition`` returns a true value.

    Raises:
        TimeoutError: the condition was not true in time; its traceback shows the condition.
    """
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(_PAUSE_S)
