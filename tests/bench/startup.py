"""From the start of the server's process to its first token on the private tailnet."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from tests.bench.figure import Bar, Figure
from tests.bench.load import LoadGenerator
from tests.bench.servers import TailboneServer, server_key

if TYPE_CHECKING:
    from tests.bench.session import Session


async def measure(session: Session) -> list[Figure]:
    """Start servers that have nothing yet, and start each again."""
    first, again = [], []
    async with LoadGenerator(session) as load:
        for _ in range(session.effort.starts):
            key = await server_key(session)
            fresh = TailboneServer(session, key)
            first.append(await _to_token(fresh, load))
            known = TailboneServer(session, key, place=fresh.place, hostname=fresh.hostname)
            again.append(await _to_token(known, load))
    return [
        _figure("start to first token, first login and first key", first, Bar(most=1.5)),
        _figure("start to first token, again with its state", again, None),
    ]


async def _to_token(server: TailboneServer, load: LoadGenerator) -> float:
    began = time.time()
    async with server:
        # Both processes read the same clock of this machine.
        return (await load.first_token(server.hostname)).ended - began


def _figure(name: str, times: list[float], bar: Bar | None) -> Figure:
    note = f"{len(times)} starts: {min(times):.2f} to {max(times):.2f} s"
    return Figure(name=name, value=median(times), unit="s", bar=bar, note=note)
