"""The time from the start of the server's process to its first token on the private tailnet."""

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
    """Start new servers, and restart each twice."""
    first, again, known = [], [], []
    async with LoadGenerator(session) as acquaintance:
        for _ in range(session.effort.starts):
            key = await server_key(session)
            server = TailboneServer(session, key)
            first.append(await _to_token(server, acquaintance))
            server = TailboneServer(session, key, place=server.place, hostname=server.hostname)
            async with LoadGenerator(session) as stranger:
                again.append(await _to_token(server, stranger))
            server = TailboneServer(session, key, place=server.place, hostname=server.hostname)
            known.append(await _to_token(server, acquaintance))
    return [
        _figure("start to first token, first login and first key", first, Bar(most=1.5)),
        _figure("start to first token, again with its state", again, None),
        _figure("the same, asked by a peer that knew it before", known, None),
    ]


async def _to_token(server: TailboneServer, load: LoadGenerator) -> float:
    began = time.time()
    async with server:
        await server.ready()
        # Both processes read the same clock of this machine.
        return (await load.first_token(server.hostname)).ended - began


def _figure(name: str, times: list[float], bar: Bar | None) -> Figure:
    note = f"{len(times)} starts: {min(times):.2f} to {max(times):.2f} s"
    return Figure(name=name, value=median(times), unit="s", bar=bar, note=note)
