"""RateLimit: how many requests each node of the tailnet may make."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_BURST_S: Final = 2.0
"""How many seconds' worth of requests a node may make at once after a pause."""

_FIRST_PRUNING: Final = 1024


class RateLimit:
    """Admits ``per_s`` requests a second from each node, after a burst of twice as many.

    This is GCRA (ITU-T I.371, the virtual scheduling algorithm): one number per node, the time at which its
    bucket is full again. After that time a node needs no entry. Such entries are removed whenever the table
    has doubled, so that it has at most twice as many as there were nodes asking within two seconds.
    """

    def __init__(self, per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Make a limit.

        Args:
            per_s: requests per second; 0 admits all.
            clock: returns seconds of a monotonic clock.
        """
        self.per_s = per_s
        self._interval_s = 1 / per_s if per_s else 0.0
        # Half an interval, so that rounding errors of many sums do not cost the last request.
        self._tolerance_s = _BURST_S - self._interval_s / 2
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._prune_at = _FIRST_PRUNING

    def admits(self, node_id: str) -> bool:
        """Count a request of a node, and return whether it is admitted; a refused one does not count."""
        now = self._clock()
        full_at = self._full_at.get(node_id, now)
        if full_at < now:
            full_at = now
        elif full_at - now > self._tolerance_s:
            return False
        self._full_at[node_id] = full_at + self._interval_s
        if len(self._full_at) >= self._prune_at:
            self._prune(now)
        return True

    def _prune(self, now: float) -> None:
        self._full_at = {node: full_at for node, full_at in self._full_at.items() if full_at > now}
        self._prune_at = max(_FIRST_PRUNING, 2 * len(self._full_at))
