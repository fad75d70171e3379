"""All figures of speed in one run: RS256, ES256 and the plain Go server at 1 to 1,000 connections."""

from __future__ import annotations

from contextlib import AsyncExitStack
from statistics import median
from typing import TYPE_CHECKING, Final

from tests.bench import connections as fresh
from tests.bench import memory, startup
from tests.bench.figure import Bar, Figure, columns, rounded
from tests.bench.load import LoadGenerator
from tests.bench.machine import has_avx512_ifma
from tests.bench.servers import GoServer, Running, TailboneServer, server_key
from tests.bench.signing_path import best_signature_us
from tests.bench.tokens import settings, take_turn

if TYPE_CHECKING:
    from tests.bench.session import Session
    from tests.bench.tokens import Turn

_CONNECTIONS: Final = (1, 16, 64, 256, 1000)
_WARM_UP_S: Final = 1.0
_OURS: Final = ("RS256", "ES256")
_BASELINE: Final = "Go"
_HEADINGS: Final = (
    "server",
    "connections",
    "tokens/s",
    "CPU µs",
    "× Go",
    "× signature",
    "p50 ms",
    "p99 ms",
    "max ms",
    "failed",
)


async def measure(session: Session) -> list[Figure]:
    """Measure the three servers in turn at each number of connections, then start, memory and connections."""
    signatures = {algorithm: best_signature_us(algorithm) for algorithm in _OURS}
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(LoadGenerator(session))
        servers: dict[str, Running] = {}
        for name in (*_OURS, _BASELINE):
            key = await server_key(session)
            server = (
                GoServer(session, key)
                if name == _BASELINE
                else TailboneServer(session, key, variables=settings(name, _CONNECTIONS))
            )
            servers[name] = await stack.enter_async_context(Running(server, load))
            if isinstance(server, GoServer):
                signatures[name] = server.signature_us
        turns = await _turns(session, load, servers)
    print(columns([_HEADINGS, *_rows(turns, signatures)]), flush=True)
    return [
        *_figures(turns, signatures),
        *await fresh.measure(session),
        *await startup.measure(session),
        *await memory.measure(session),
    ]


async def _turns(
    session: Session, load: LoadGenerator, servers: dict[str, Running]
) -> dict[tuple[str, int], list[Turn]]:
    turns: dict[tuple[str, int], list[Turn]] = {}
    for server in servers.values():
        await load.run(server.hostname, connections=16, seconds=_WARM_UP_S)
    for number in range(session.effort.rounds):
        # Alternate the order, since each turn affects the next.
        shift = number % len(servers)
        order = [*servers][shift:] + [*servers][:shift]
        for connections in _CONNECTIONS:
            for name in order:
                turn = await take_turn(load, servers[name], connections, session.effort.turn_s)
                turns.setdefault((name, connections), []).append(turn)
    return turns


def _of(turns: list[Turn], member: str) -> float:
    return median(getattr(turn, member) for turn in turns)


def _rows(turns: dict[tuple[str, int], list[Turn]], signatures: dict[str, float]) -> list[tuple[str, ...]]:
    rows = []
    for (name, connections), rounds in sorted(turns.items(), key=lambda item: (item[0][1], item[0][0])):
        cpu_us = _of(rounds, "cpu_us")
        rows.append(
            (
                name,
                str(connections),
                rounded(_of(rounds, "rate")),
                rounded(cpu_us),
                f"{cpu_us / _of(turns[_BASELINE, connections], 'cpu_us'):.3f}",
                f"{cpu_us / signatures[name]:.2f}",
                *(rounded(_of(rounds, member)) for member in ("p50_ms", "p99_ms", "max_ms")),
                "; ".join(filter(None, (turn.failures for turn in rounds))),
            )
        )
    return rows


def _figures(turns: dict[tuple[str, int], list[Turn]], signatures: dict[str, float]) -> list[Figure]:
    """Compare the figures with those that tailbone promises."""
    rs256 = {connections: turns["RS256", connections] for connections in _CONNECTIONS}
    ifma = has_avx512_ifma()
    at_16 = _of(rs256[16], "cpu_us")
    go_at_16 = _of(turns[_BASELINE, 16], "cpu_us")
    note = f"bare RSA-2048 signature: OpenSSL {signatures['RS256']:.0f} µs, Go {signatures[_BASELINE]:.0f} µs"
    return [
        Figure(
            name="RS256, CPU per token, 16 connections",
            value=at_16,
            unit="µs",
            baseline=go_at_16,
            ratio=at_16 / go_at_16,
            bar=Bar(most=0.40 if ifma else 0.65, of_ratio=True),
            note=f"{note}; AVX512-IFMA: {'yes' if ifma else 'no'}",
        ),
        Figure(
            name="the same beside a bare signature",
            value=at_16,
            unit="µs",
            baseline=signatures["RS256"],
            ratio=at_16 / signatures["RS256"],
            bar=Bar(most=1.9, of_ratio=True),
        ),
        Figure(
            name="ES256, CPU per token, 16 connections",
            value=_of(turns["ES256", 16], "cpu_us"),
            unit="µs",
            bar=Bar(most=230),
            note=f"bare signature {signatures['ES256']:.0f} µs",
        ),
        Figure(
            name="RS256, 99 % latency, 16 connections",
            value=_of(rs256[16], "p99_ms"),
            unit="ms",
            baseline=_of(rs256[16], "p50_ms"),
            ratio=_of(rs256[16], "p99_ms") / _of(rs256[16], "p50_ms"),
            bar=Bar(most=3, of_ratio=True),
            note="baseline: its median",
        ),
        Figure(
            name="RS256, rate, 256 connections",
            value=_of(rs256[256], "rate"),
            unit="tokens/s",
            baseline=_of(rs256[16], "rate"),
            ratio=_of(rs256[256], "rate") / _of(rs256[16], "rate"),
            bar=Bar(least=0.9, of_ratio=True),
            note="baseline: 16 connections",
        ),
        *(
            Figure(
                name=f"RS256, slowest request, {connections} connections",
                value=max(turn.max_ms for turn in rs256[connections]) / 1000,
                unit="s",
                bar=Bar(most=most_s),
            )
            for connections, most_s in ((256, 1.0), (1000, 3.0))
        ),
    ]
