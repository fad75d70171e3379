"""Cache the issuer's keys. At most one fetch runs at a time, and attackers cannot force frequent fetches.

- Fresh keys are used without a fetch, for as long as the issuer's Cache-Control allows.
- Stale keys are used while a fetch replaces them. If fetches fail, they are used for up to ``STALE_S``.
- An unknown kid triggers a fetch at most every ``COOL_DOWN_S``. A kid that is still missing afterwards is not
  looked up again for ``ABSENT_S``.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.verify.errors import KeysUnavailableError, UnknownTokenKeyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.verify.http import PublishedKeys
    from tailbone.verify.keys import Keys, VerifyingKey

COOL_DOWN_S: Final = 30.0
"""The shortest time between two fetches while there are usable keys, in seconds."""

STALE_S: Final = 24 * 3600.0
"""How long keys are used while fetches fail, in seconds."""

ABSENT_S: Final = 300.0
MOST_ABSENT: Final = 128
FRESH_S: Final = (60.0, 3600.0)
"""The bounds for the time that Cache-Control allows, in seconds."""

_FIRST_PAUSE_S: Final = 1.0


class _Cached(msgspec.Struct, frozen=True):
    keys: Keys
    fresh_until: float
    usable_until: float


class KeyCache:
    """The issuer's keys that have been fetched. Threads and tasks may share it."""

    def __init__(self, fetch: Callable[[], PublishedKeys], monotonic: Callable[[], float]) -> None:
        """Create an empty cache.

        Args:
            fetch: fetches the keys; raises KeysUnavailableError. It runs in a thread.
            monotonic: returns seconds of a monotonic clock.
        """
        self._fetch = fetch
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._cached = _Cached({}, float("-inf"), float("-inf"))
        self._under_way: Future[None] | None = None
        self._next_fetch = float("-inf")
        self._failure = KeysUnavailableError("the issuer's keys were not fetched yet")
        self._failures = 0
        self._absent: dict[str, float] = {}

    def get(self, kid: str) -> VerifyingKey | None:
        """Return the key, if it is known. If the keys are stale, start a fetch, without waiting for it."""
        cached = self._cached
        now = self._monotonic()
        if now >= cached.fresh_until:
            if now >= cached.usable_until:
                return None
            with self._lock:
                self._fetch_if_due(now)
        return cached.keys.get(kid)

    def fetch_for(self, kid: str) -> Future[None] | None:
        """Return a running fetch that may find an unknown key; None if it is too early for another fetch."""
        now = self._monotonic()
        with self._lock:
            if now < self._cached.usable_until and self._absent.get(kid, now) > now:
                return None
            return self._fetch_if_due(now)

    def require(self, kid: str) -> VerifyingKey:
        """Return the key, whether or not a fetch has just run.

        Raises:
            UnknownTokenKeyError: the issuer publishes no key with this kid.
            KeysUnavailableError: the issuer's keys could not be fetched.
        """
        now = self._monotonic()
        with self._lock:
            cached = self._cached
            if now >= cached.usable_until:
                raise KeysUnavailableError(self._failure.message, detail=self._failure.detail)
            if kid in cached.keys:
                return cached.keys[kid]
            if kid not in self._absent:
                while len(self._absent) >= MOST_ABSENT:
                    del self._absent[next(iter(self._absent))]
            elif self._absent[kid] <= now:
                del self._absent[kid]
            self._absent.setdefault(kid, now + ABSENT_S)
        raise UnknownTokenKeyError("the issuer publishes no key with the token's kid")

    def _fetch_if_due(self, now: float) -> Future[None] | None:
        """Return the running fetch; start one if none is running and the last one is long enough ago."""
        if self._under_way is None and now >= self._next_fetch:
            under_way: Future[None] = Future()
            thread = threading.Thread(target=self._run, args=(under_way,), name="tailbone-keys", daemon=True)
            thread.start()
            self._under_way = under_way
            self._next_fetch = now + COOL_DOWN_S
        return self._under_way

    def _run(self, under_way: Future[None]) -> None:
        try:
            published = self._fetch()
        except KeysUnavailableError as error:
            self._note_failure(error)
        else:
            self._replace(published)
        finally:
            with self._lock:
                self._under_way = None
            under_way.set_result(None)

    def _replace(self, published: PublishedKeys) -> None:
        now = self._monotonic()
        shortest, longest = FRESH_S
        with self._lock:
            fresh_until = now + min(max(published.max_age_s, shortest), longest)
            self._cached = _Cached(published.keys, fresh_until, now + STALE_S)
            self._failures = 0

    def _note_failure(self, failure: KeysUnavailableError) -> None:
        now = self._monotonic()
        with self._lock:
            self._failure = failure
            if now >= self._cached.usable_until:
                # Nothing verifies until it succeeds, so try again sooner.
                self._next_fetch = now + min(_FIRST_PAUSE_S * 2**self._failures, COOL_DOWN_S)
                self._failures = min(self._failures + 1, 10)
