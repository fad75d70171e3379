"""What a token costs, beside the plain Go server: processor time, latency, rate; in alternating turns."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import msgspec

from tests.bench.figure import Bar, Figure, compared
from tests.bench.load import LoadGenerator
from tests.bench.procfs import cpu_s, voluntary_switches
from tests.bench.servers import GoServer, Running, TailboneServer, server_key
from tests.bench.signing_path import best_signature_us

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.session import Session

_WARM_UP_S = 1.0
_SHARE = 4
"""A server allows one address a quarter of its connections."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one server under load for some seconds.

    Attributes:
        cpu_us: processor time of the server per token, all threads, in µs.
        rate: tokens a second.
        p50_ms: median latency.
        p99_ms: latency.
        max_ms: latency of the slowest request.
        switches: voluntary context switches of the server per token.
        failures: the failures, for a note.
    """

    cpu_us: float
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    switches: float
    failures: str


async def measure(session: Session) -> list[Figure]:
    """Measure both servers in turn, at each number of connections."""
    effort, options = session.effort, session.options
    variables = settings(options.algorithm, options.connections)
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(LoadGenerator(session))
        ours = await stack.enter_async_context(
            Running(TailboneServer(session, await server_key(session), variables=variables), load)
        )
        other = await _other(session)
        theirs = await stack.enter_async_context(Running(other, load))
        figures = [_signatures(other)] if isinstance(other, GoServer) else []
        servers = [ours, theirs]
        turns: dict[tuple[int, int], list[Turn]] = {}
        for connections in options.connections:
            for server in servers:
                await load.run(server.hostname, connections=connections, seconds=_WARM_UP_S)
        for number in range(effort.rounds):
            # Alternate the order, since the first turn affects the second.
            order = servers if number % 2 == 0 else servers[::-1]
            for connections in options.connections:
                for server in order:
                    turn = await take_turn(load, server, connections, effort.turn_s)
                    turns.setdefault((servers.index(server), connections), []).append(turn)
    named = f"baseline: {' '.join(options.against)}" if options.against else ""
    for connections in options.connections:
        figures += _at(connections, turns[0, connections], turns[1, connections], named)
    return figures


def settings(algorithm: str, connections: Sequence[int]) -> dict[str, str]:
    """Return the variables for a server that one address may ask over so many connections."""
    return {
        "TB_KEYS_ALGORITHM": algorithm,
        "TB_SERVER_MAXCONNECTIONS": str(max(1024, _SHARE * max(connections))),
    }


async def _other(session: Session) -> GoServer | TailboneServer:
    key = await server_key(session)
    if session.options.against:
        return TailboneServer(
            session,
            key,
            command=session.options.against,
            variables=settings(session.options.algorithm, session.options.connections),
        )
    return GoServer(session, key)


def _signatures(other: GoServer) -> Figure:
    """Compare the bare signatures, which are most of a token's cost; their ratio depends on the processor."""
    ours = best_signature_us()
    return Figure(
        name="bare RSA-2048 signature, OpenSSL and Go",
        value=ours,
        unit="µs",
        baseline=other.signature_us,
        ratio=ours / other.signature_us,
        note="OpenSSL needs half as long on processors with AVX512-IFMA",
    )


async def take_turn(load: LoadGenerator, server: Running, connections: int, seconds: float) -> Turn:
    """Put one server under load, and measure."""
    switches, cpu = voluntary_switches(server.pid), cpu_s(server.pid)
    report = await load.run(server.hostname, connections=connections, seconds=seconds)
    cpu, switches = cpu_s(server.pid) - cpu, voluntary_switches(server.pid) - switches
    return Turn(
        cpu_us=cpu / report.requests * 1e6,
        rate=report.rate,
        p50_ms=report.p50_ms,
        p99_ms=report.p99_ms,
        max_ms=report.max_ms,
        switches=switches / report.requests,
        failures=report.failures,
    )


def _at(connections: int, ours: list[Turn], theirs: list[Turn], note: str) -> list[Figure]:
    where = "1 connection" if connections == 1 else f"{connections} connections"
    failures = "; ".join(filter(None, (turn.failures for turn in (*ours, *theirs))))
    if failures:
        note = f"FAILED: {failures}; {note}"
    single, go_at_16 = connections == 1, connections == 16 and not note

    def one(name: str, member: str, unit: str, bar: Bar | None = None) -> Figure:
        return compared(
            f"{name}, {where}",
            [float(getattr(turn, member)) for turn in ours],
            [float(getattr(turn, member)) for turn in theirs],
            unit=unit,
            bar=bar,
            note=note,
        )

    return [
        one("server CPU per token", "cpu_us", "µs", Bar(most=0.45, of_ratio=True) if go_at_16 else None),
        one("median latency", "p50_ms", "ms", Bar(most=0.5, of_ratio=True) if single and not note else None),
        one("99 % latency", "p99_ms", "ms"),
        one("slowest request", "max_ms", "ms"),
        one("rate", "rate", "tokens/s"),
        one("context switches per token", "switches", ""),
    ]
