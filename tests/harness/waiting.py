"""Wait for a condition, with a deadline."""

from __future__ import annotations

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
    """Give the first true value of ``condition``.

    Args:
        condition: is asked again and again.
        what: names the condition in the failure.
        timeout_s: how long it may take, in seconds.
        shows: more for the failure.

    Raises:
        AssertionError: it was not true in time.
    """
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s:g} s: {what} {shows()}")
        time.sleep(_PAUSE_S)
