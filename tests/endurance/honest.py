"""An honest caller: asks for tokens at a fixed pace, on kept and on new connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from statistics import quantiles
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.endurance.scene import Place

_TIMEOUT_S: Final = 10.0
_AT_ONCE: Final = 16
_FRESH_EACH: Final = 5


class Honest(msgspec.Struct, frozen=True, kw_only=True):
    """What an honest caller saw.

    Attributes:
        tokens: that it got.
        failed: why requests failed, and how often.
        took_ms: from when each request was due to its answer, sorted, in ms.
    """

    tokens: int
    failed: dict[str, int]
    took_ms: list[float]

    def percentile(self, hundredth: int) -> float:
        """Return how long a request took, in ms; infinite without two requests."""
        return quantiles(self.took_ms, n=100)[hundredth - 1] if len(self.took_ms) > 1 else float("inf")


class RefusedError(Exception):
    """An answer that is not a token."""


class Connection:
    """One connection to the issuer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._request = f"POST /issue HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()

    @classmethod
    async def open(cls, address: tuple[str, int], host: str) -> Connection:
        """Connect.

        Args:
            address: a local port that leads to the issuer.
            host: the Host field that means the server.
        """
        return cls(*await asyncio.open_connection(*address), host)

    async def issue(self) -> str:
        """Ask for a token.

        Raises:
            RefusedError: the answer has none.
            OSError: no answer came.
            EOFError: no answer came.
        """
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, _, fields = head.lower().partition(b"\r\n")
        length = int(fields.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        answer = json.loads(await self._reader.readexactly(length))
        if status != b"http/1.1 200 ok":
            raise RefusedError(f"{status.decode()[9:12]} {answer.get('error')}")
        token: str = answer["token"]
        return token

    def close(self) -> None:
        """Close it."""
        self._writer.close()


async def ask(places: Sequence[Place], seconds: float, rate: float) -> Honest:
    """Ask for tokens.

    Args:
        places: of the caller; the first one counts.
        seconds: for how long.
        rate: requests a second. One that is due while the server is slow waits for its turn, and that counts.
    """
    return await _Caller(places[0]).ask(seconds, rate)


class _Caller:
    def __init__(self, place: Place) -> None:
        self._place = place
        self._idle: list[Connection] = []
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._tokens = 0
        self._failed: Counter[str] = Counter()
        self._took_ms: list[float] = []

    async def ask(self, seconds: float, rate: float) -> Honest:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(seconds * rate)):
                due = began + number / rate
                await asyncio.sleep(due - time.monotonic())
                group.create_task(self._one(due, fresh=number % _FRESH_EACH == 0))
        for connection in self._idle:
            connection.close()
        return Honest(tokens=self._tokens, failed=dict(self._failed), took_ms=sorted(self._took_ms))

    async def _one(self, due: float, *, fresh: bool) -> None:
        async with self._free:
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await self._issue(fresh=fresh)
                self._tokens += 1
            except RefusedError as refused:
                self._failed[str(refused)] += 1
            except TimeoutError:
                self._failed[f"no answer within {_TIMEOUT_S:g} s"] += 1
            except (OSError, EOFError) as error:
                self._failed[type(error).__name__] += 1
            self._took_ms.append((time.monotonic() - due) * 1000)

    async def _issue(self, *, fresh: bool) -> None:
        kept = self._idle and not fresh
        place = self._place
        connection = self._idle.pop() if kept else await Connection.open(place.issuer, place.host)
        try:
            await connection.issue()
        except BaseException:
            connection.close()
            raise
        if fresh:
            connection.close()
        else:
            self._idle.append(connection)
