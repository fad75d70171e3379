"""Resident memory of the server: idle, and while it issues 100,000 tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.figure import Bar, Figure
from tests.bench.load import LoadGenerator
from tests.bench.procfs import rss_mb, until_idle
from tests.bench.servers import Running, TailboneServer, server_key

if TYPE_CHECKING:
    from tests.bench.session import Session

_SLICES = 20
_CONNECTIONS = 16
# The allocator's noise; a leak of 40 bytes per token shows as twice as much.
_NOISE_MB = 1.0


async def measure(session: Session) -> list[Figure]:
    """Sample the memory before, and after each twentieth of the tokens."""
    tokens = session.effort.tokens
    async with (
        LoadGenerator(session) as load,
        Running(TailboneServer(session, await server_key(session)), load) as server,
    ):
        await until_idle(server.pid)
        idle = rss_mb(server.pid)
        samples, failed = [], 0
        for _ in range(_SLICES):
            report = await load.run(server.hostname, connections=_CONNECTIONS, requests=tokens // _SLICES)
            failed += report.failed
            samples.append(rss_mb(server.pid))
    middle, end = samples[_SLICES // 2 - 1], samples[-1]
    course = " ".join(f"{sample:.1f}" for sample in samples[1::2])
    return [
        Figure(name="RSS, idle after the first token", value=idle, unit="MB", bar=Bar(most=105)),
        Figure(
            name=f"RSS after {tokens} tokens",
            value=end,
            unit="MB",
            bar=Bar(most=125),
            note=f"{failed} failed; after each tenth: {course}",
        ),
        Figure(
            name="RSS growth over the last half",
            value=end - middle,
            unit="MB",
            bar=Bar(most=_NOISE_MB),
            note="up to 1 MB is noise",
        ),
    ]
