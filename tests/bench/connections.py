"""A new connection for every request: none may fail, whichever side closes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.figure import Bar, Figure
from tests.bench.load import LoadGenerator
from tests.bench.servers import Running, TailboneServer, server_key

if TYPE_CHECKING:
    from tests.bench.session import Session


async def measure(session: Session) -> list[Figure]:
    """Send 3,000 requests in each of four modes."""
    figures, asked = [], session.effort.fresh_connections
    async with (
        LoadGenerator(session) as load,
        Running(TailboneServer(session, await server_key(session)), load) as server,
    ):
        for connections in (1, 16):
            for server_ends in (True, False):
                report = await load.run(
                    server.hostname,
                    connections=connections,
                    requests=asked,
                    fresh=True,
                    server_ends=server_ends,
                )
                how = "sequential" if connections == 1 else f"{connections} at once"
                who = "server" if server_ends else "client"
                note = (
                    f"median {report.p50_ms:.2f} ms, 99 % {report.p99_ms:.1f} ms, "
                    f"slowest {report.max_ms:.0f} ms, {report.slow} over 0.9 s"
                )
                figures.append(
                    Figure(
                        name=f"failed of {asked} new connections, {how}, {who} closes",
                        value=report.failed,
                        bar=Bar(most=0),
                        note=f"{note}; {report.failures}" if report.failures else note,
                    )
                )
    return figures
