"""Sources of tokens: they cache a token, and renew it at half of its life."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, TypeVar

from tailbone.client.issuer import Issuer, Tokens
from tailbone.errors import IssuerRefusedError, TailboneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.client.token import Token

_T = TypeVar("_T")

_MIN_TTL_S: Final = 1.0
_SHORTEST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
_RESERVED_SHARE: Final = 0.75
"""The largest share of a token's life that is a reserve: otherwise it would be renewed all the time."""
_BOOTTIME: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


def elapsed() -> float:
    """Return seconds of a monotonic clock; on Linux, including time asleep."""
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


class Cache:
    """The last token, and when to request the next one. Not thread-safe.

    Attributes:
        token: the last token; None before the first.
        error: why the last request failed; None if it did not.
    """

    def __init__(
        self, min_ttl: float, reserve: float, clock: Callable[[], float], jitter: Callable[[], float]
    ) -> None:
        self.token: Token | None = None
        self.error: TailboneError | None = None
        self._min_ttl = min_ttl
        self._reserve = reserve
        self._clock = clock
        self._jitter = jitter
        self._renew_at = self._next_try = clock()
        self._usable_until = -math.inf
        self._failures = 0

    @property
    def usable(self) -> bool:
        """Whether the token is valid for at least ``min_ttl`` more seconds."""
        return self._clock() <= self._usable_until

    @property
    def left_s(self) -> float:
        """How many more seconds the token is valid."""
        return self._usable_until + self._min_ttl - self._clock()

    @property
    def due_in_s(self) -> float:
        """Return the seconds until the next request is due: see ``store`` and ``failed``."""
        return max(self._renew_at, self._next_try) - self._clock()

    def store(self, token: Token, asked_at: float) -> None:
        """Store a token that was requested at ``asked_at``; the next request is due at half of its life.

        If its life is long enough, it is due before less than ``reserve`` is left.

        Raises:
            IssuerRefusedError: its lifetime is shorter than ``min_ttl``.
        """
        if token.life_s < self._min_ttl:
            raise IssuerRefusedError(
                f"the issuer's token is valid for {token.life_s:g} s, less than min_ttl ({self._min_ttl:g} s)"
            )
        self.token, self.error, self._failures = token, None, 0
        self._usable_until = asked_at + token.life_s - self._min_ttl
        # Spreads out the requests of programs that started at the same time.
        renew_s = token.life_s * (0.45 + 0.05 * self._jitter())
        if token.life_s * _RESERVED_SHARE >= self._reserve:
            renew_s = min(renew_s, token.life_s - self._reserve)
        self._renew_at = min(asked_at + renew_s, self._usable_until)

    def failed(self, error: TailboneError) -> None:
        """Record a failed request. Each failure doubles the wait before the next request."""
        self.error = error
        longest = min(_LONGEST_PAUSE_S, 2 * _SHORTEST_PAUSE_S * 2**self._failures)
        self._next_try = self._clock() + longest * (1 + self._jitter()) / 2
        self._failures = min(self._failures + 1, 16)

    def expedite(self) -> None:
        """Make the next request due now."""
        self._renew_at = self._next_try = self._clock()

    def last(self) -> Token:
        """Return the last token, or raise the reason why there is no usable one."""
        if self.token is not None and (self.error is None or self.usable):
            return self.token
        assert self.error is not None  # noqa: S101 -- for the type checker: a first request has ended
        raise type(self.error)(self.error.message)


class _Source:
    def __init__(
        self,
        audience: str = "",
        ttl: float | None = None,
        *,
        min_ttl: float = _MIN_TTL_S,
        reserve: float = 0.0,
        issuer: Tokens | None = None,
        clock: Callable[[], float] = elapsed,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Create a source; the first ``get`` requests a token.

        Args:
            audience: the claim ``aud``; empty for tokens without it.
            ttl: lifetime to request, in whole seconds; by default the issuer's.
            min_ttl: how many seconds a token must still be valid for.
            reserve: how many seconds a token should still be valid for when it is renewed, for readers that
                keep a copy; ignored for tokens whose life is less than 4/3 of it.
            issuer: issues the tokens; by default ``Issuer()``.
            clock: returns seconds of a monotonic clock.
            jitter: returns random numbers from 0 to 1, which spread out renewals.
        """
        self._audience = audience
        self._ttl = ttl
        self._issuer = issuer or Issuer()
        self._clock = clock
        self._cache = Cache(min_ttl, reserve, clock, jitter)
        self._lock = threading.Lock()

    @property
    def due_in_s(self) -> float:
        """Return the seconds until the next request is due."""
        return self._cache.due_in_s

    @property
    def left_s(self) -> float:
        """How many more seconds the last token is valid."""
        return self._cache.left_s

    @property
    def error(self) -> TailboneError | None:
        """Why the last request failed; None if it did not."""
        return self._cache.error

    def expedite(self) -> None:
        """Make the next request due now."""
        self._cache.expedite()

    def _ask(self) -> None:
        """Request a token, and store it or the failure."""
        asked_at = self._clock()
        try:
            token = self._issuer.issue(self._audience, self._ttl)
            with self._lock:
                self._cache.store(token, asked_at)
        except TailboneError as error:
            with self._lock:
                self._cache.failed(error)


def start_daemon_thread(call: Callable[[], _T]) -> Future[_T]:
    """Run a call in a thread that, unlike a pool's, does not keep the process from exiting."""
    done: Future[_T] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 -- the future's reader gets it
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done


class TokenSource(_Source):
    """A source of tokens for threads.

    It can be passed as it is where an SDK takes a function that returns a token: azure-identity's
    ``ClientAssertionCredential``, the OpenAI SDK's ``get_token``.
    """

    _renewing: Future[None] | None = None

    def get(self) -> str:
        """Return a JWT that is valid for at least ``min_ttl`` seconds; see ``token``."""
        return self.token().value

    def __call__(self) -> str:
        """Return a JWT, as ``get`` does."""
        return self.get()

    def token(self) -> Token:
        """Return a token that is valid for at least ``min_ttl`` seconds.

        It is requested if there is none, and renewed in the background from half of its life on; one request
        runs at a time. While the issuer is unreachable, a token is used until it expires.

        Raises:
            TailboneError: there is no such token; see ``Issuer.issue``. After a failure the next request
                waits for 1 to 60 s, and the error is raised again until then.
        """
        with self._lock:
            if self._cache.due_in_s > 0:
                return self._cache.last()
            if self._renewing is None or self._renewing.done():
                self._renewing = start_daemon_thread(self._ask)
            renewing = self._renewing
            if self._cache.usable:
                return self._cache.last()
        renewing.result()
        with self._lock:
            return self._cache.last()


class AsyncTokenSource(_Source):
    """A source of tokens for the tasks of one event loop. Requests run in a thread."""

    _renewing: asyncio.Future[None] | None = None

    async def get(self) -> str:
        """Return a JWT; see ``TokenSource.token``."""
        return (await self.token()).value

    async def __call__(self) -> str:
        """Return a JWT, as ``get`` does."""
        return await self.get()

    async def token(self) -> Token:
        """Return a token; see ``TokenSource.token``. Cancelling a caller does not cancel the request."""
        renewing = self._renew_if_due()
        if renewing is not None and not self._cache.usable:
            await asyncio.shield(renewing)
        return self._cache.last()

    async def renewed(self) -> Token:
        """Return a token as ``token`` does, but wait for its renewal if that is due."""
        renewing = self._renew_if_due()
        if renewing is not None:
            await asyncio.shield(renewing)
        return self._cache.last()

    def _renew_if_due(self) -> asyncio.Future[None] | None:
        """Return the running request, started if one is due; None if none is due."""
        if self._cache.due_in_s > 0:
            return None
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.wrap_future(start_daemon_thread(self._ask))
        return self._renewing
