"""Callers whose connections come and go, and who verify each token with their copy of the JWKS."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from tests.endurance.bucket import Verifier, kid_of
from tests.endurance.honest import Connection, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.endurance.scene import Place

_CALLERS: Final = 16
_MOST_REQUESTS: Final = 200
_TIMEOUT_S: Final = 10.0
_PAUSE_S: Final = 0.05


class Load(msgspec.Struct, kw_only=True):
    """What the callers saw.

    Attributes:
        tokens: that they got, each verified at once.
        connections: that they made.
        kids: which keys signed.
        reads: of the JWKS.
        failed: when requests failed (Unix time, seconds), and why.
        faults: tokens that did not verify, and keys that left the JWKS under valid tokens; counted.
    """

    tokens: int = 0
    connections: int = 0
    kids: set[str] = msgspec.field(default_factory=set)
    reads: int = 0
    failed: list[tuple[float, str]] = msgspec.field(default_factory=list)
    faults: Counter[str] = msgspec.field(default_factory=Counter)


async def load(
    places: Sequence[Place], endpoint: str, tokens: int, max_age_s: float, expiry_s: float, seed: int
) -> Load:
    """Ask for so many tokens.

    Args:
        places: of the callers; the first one counts.
        endpoint: of the S3 server.
        tokens: how many.
        max_age_s: how long they keep the JWKS.
        expiry_s: how long a token is valid.
        seed: of the lengths of the connections.
    """
    return await _Callers(places[0], endpoint, random.Random(seed)).ask(tokens, max_age_s, expiry_s)


class _Callers:
    def __init__(self, place: Place, endpoint: str, lengths: random.Random) -> None:
        self._place = place
        self._lengths = lengths
        self._verifier = Verifier(endpoint)
        self._load = Load()
        self._issued_at: dict[str, float] = {}

    async def ask(self, tokens: int, max_age_s: float, expiry_s: float) -> Load:
        self._verifier.read()
        left = iter(range(tokens))
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read_again_and_again(max_age_s, expiry_s))
            async with asyncio.TaskGroup() as callers:
                for _ in range(_CALLERS):
                    callers.create_task(self._call(left))
            reading.cancel()
        return self._load

    async def _call(self, left: Iterator[int]) -> None:
        while True:
            requests = self._lengths.randint(1, _MOST_REQUESTS)
            connection: Connection | None = None
            try:
                async with asyncio.timeout(_TIMEOUT_S) as limit:
                    connection = await Connection.open(self._place.issuer, self._place.host)
                    self._load.connections += 1
                    for _ in range(requests):
                        if next(left, None) is None:
                            return
                        limit.reschedule(asyncio.get_running_loop().time() + _TIMEOUT_S)
                        self._take(await connection.issue())
            except (RefusedError, OSError, EOFError) as error:
                # TimeoutError is an OSError.
                self._load.failed.append((time.time(), f"{type(error).__name__} {error}".strip()))
                await asyncio.sleep(_PAUSE_S)
            finally:
                if connection:
                    connection.close()

    def _take(self, token: str) -> None:
        kid = kid_of(token)
        try:
            self._verifier.verify(token)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is a fault
            self._load.faults[f"a token of {kid} does not verify: {error!r}"] += 1
        self._load.tokens += 1
        self._load.kids.add(kid)
        self._issued_at[kid] = time.monotonic()

    async def _read_again_and_again(self, max_age_s: float, expiry_s: float) -> None:
        while True:
            await asyncio.sleep(max_age_s)
            self._verifier.read()
            self._load.reads += 1
            for kid, issued_at in self._issued_at.items():
                if kid not in self._verifier.keys and time.monotonic() - issued_at < expiry_s:
                    self._load.faults[f"{kid} is gone, and its last token is still valid"] += 1
