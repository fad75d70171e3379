"""The cost of a key change: other callers' tokens, its duration, the event loop's longest block."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from statistics import median
from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.admin.client import AdminClient
from tests.bench.commands import ADMIN_PORT, admin_node
from tests.bench.figure import Bar, Figure
from tests.bench.load import LoadGenerator
from tests.bench.program import Program, ProgramError
from tests.bench.s3_server import CREDENTIALS
from tests.bench.servers import Running, TailboneServer, server_key
from tests.bench.toolchain import ROOT
from tests.bench.watched_server import VARIABLE, Block, read_blocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from tests.bench.load import LoadReport
    from tests.bench.session import Session

_BUCKET: Final = "bench"
_CONNECTIONS: Final = 16
_SLICE_S: Final = 0.25
_WINDOW: Final = 4  # slices: one second
_LOAD_S: Final = 8.0
_LEAD_S: Final = 1.5
_ACTIVE_WITHIN_S: Final = 20.0
_LOOK_EVERY_S: Final = 0.5  # each poll also costs the server some milliseconds


async def measure(session: Session) -> list[Figure]:
    """Change keys under load, and without load."""
    async with _bucket(session) as variables, LoadGenerator(session) as load, admin_node(session) as node:

        @asynccontextmanager
        async def started(**more: str) -> AsyncIterator[tuple[Running, AdminClient]]:
            # A key signs one second after it is published, instead of the default five minutes.
            settings = {**variables, "TB_KEYS_ACTIVATEAFTER": "1s", **more}
            command = [sys.executable, "-m", "tests.bench.watched_server"] if VARIABLE in more else ()
            server = TailboneServer(session, await server_key(session), variables=settings, command=command)
            async with (
                Running(server, load) as running,
                await node.forward("127.0.0.1:0", f"{server.hostname}:{ADMIN_PORT}") as forward,
            ):
                host, _, port = forward.local.rpartition(":")
                with AdminClient(host, int(port)) as client:
                    await asyncio.to_thread(client.list)
                    yield running, client

        async with started() as (running, client):
            figures = await _under_load(session, load, running.hostname, client)
        blocks = session.place("blocks") / "blocks"
        blocks.touch()
        async with started(**{VARIABLE: str(blocks), "PYTHONPATH": str(ROOT)}) as (_, client):
            figures += await _alone(session, client, blocks)
    return figures


@asynccontextmanager
async def _bucket(session: Session) -> AsyncIterator[Mapping[str, str]]:
    """Run moto's S3 server; yield the settings of a server that publishes there."""
    command = [sys.executable, "-m", "tests.bench.s3_server", _BUCKET]
    environment = session.environment(PYTHONPATH=str(ROOT))
    async with Program(command, environment, session.place("s3") / "log", speaks=True) as moto:
        endpoint = (await moto.hear())["endpoint"]
        yield {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, "TB_KEYS_BUCKET": _BUCKET}


# --- under load


class _Span(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens a second, in each whole second of a span that slides by a slice."""

    windows: Sequence[float]
    failed: int

    @property
    def usual(self) -> float:
        return median(self.windows)

    @property
    def lowest(self) -> float:
        return min(self.windows)


async def _under_load(
    session: Session, load: LoadGenerator, hostname: str, client: AdminClient
) -> list[Figure]:
    quiet, busy, took = [], [], []
    for _ in range(session.effort.changes):
        quiet.append(_span(await _ask(load, hostname), 0.0, float("inf")))
        asking = asyncio.create_task(_ask(load, hostname))
        await asyncio.sleep(_LEAD_S)
        began = time.time()
        await asyncio.to_thread(_rotate, client)
        ended = time.time()
        took.append(ended - began)
        busy.append(_span(await asking, began, ended))
    lowest = [after.lowest / before.usual for before, after in zip(quiet, busy, strict=True)]
    mean = [after.usual / before.usual for before, after in zip(quiet, busy, strict=True)]
    calm = [span.lowest / span.usual for span in quiet]
    note = f"{len(lowest)} rounds; each change {median(took):.1f} s"
    return [
        Figure(
            name="lowest second while a key is generated, published, activated, one removed",
            value=median(span.lowest for span in busy),
            unit="tokens/s",
            baseline=median(span.usual for span in quiet),
            ratio=median(lowest),
            bar=Bar(least=0.9, of_ratio=True),
            note=f"{note}; {min(lowest):.2f} to {max(lowest):.2f}; without a change {median(calm):.2f}",
        ),
        Figure(
            name="usual second while keys change",
            value=median(span.usual for span in busy),
            unit="tokens/s",
            baseline=median(span.usual for span in quiet),
            ratio=median(mean),
            note=f"{min(mean):.2f} to {max(mean):.2f}",
        ),
        Figure(
            name="failed requests while keys change",
            value=sum(span.failed for span in busy),
            bar=Bar(most=0),
        ),
    ]


async def _ask(load: LoadGenerator, hostname: str) -> LoadReport:
    return await load.run(hostname, connections=_CONNECTIONS, seconds=_LOAD_S, bucket_s=_SLICE_S)


def _span(report: LoadReport, began: float, ended: float) -> _Span:
    """Return the seconds of a report that overlap a span of Unix time."""
    # Skip the last slice, which is incomplete, and the first, in which connections are made.
    counts = report.buckets[: int(_LOAD_S / _SLICE_S)]
    windows = []
    for first in range(1, len(counts) - _WINDOW + 1):
        start = report.began + first * _SLICE_S
        end = start + _WINDOW * _SLICE_S
        if end > began and start < ended:
            windows.append(sum(counts[first : first + _WINDOW]) / (_WINDOW * _SLICE_S))
    if not windows:
        raise ProgramError("the change of the keys was not over before the load")
    return _Span(windows=windows, failed=report.failed)


def _rotate(client: AdminClient) -> None:
    """Generate a key, wait until it signs, and remove the others."""
    made = client.generate()
    limit = time.monotonic() + _ACTIVE_WITHIN_S
    while client.status().signing_key_id != made.key_id:
        if time.monotonic() > limit:
            raise ProgramError(f"{made.key_id} was not active within {_ACTIVE_WITHIN_S} s")
        time.sleep(_LOOK_EVERY_S)
    for key in client.list():
        if key.key_id != made.key_id:
            client.remove(key.key_id)


# --- alone


async def _alone(session: Session, client: AdminClient, path: Path) -> list[Figure]:
    times, blocks, calm = [], [], []
    for _ in range(session.effort.changes):
        began = time.time()
        made = await asyncio.to_thread(client.generate)
        ended = time.time()
        times.append(ended - began)
        # Add some slack, since a block is written when it is over.
        blocks.append(_longest(read_blocks(path, began, ended + 0.02)))
        await asyncio.to_thread(client.remove, made.key_id)
        quiet_from = time.time()
        await asyncio.sleep(ended - began)
        calm.append(_longest(read_blocks(path, quiet_from, time.time())))
    longest = max(blocks, key=lambda block: block.wall_ms)
    usual = median(block.wall_ms for block in blocks)
    quietest = max(block.wall_ms for block in calm)
    return [
        Figure(
            name="generate, from call to published, on moto (RSA-2048)",
            value=median(times),
            unit="s",
            bar=Bar(most=1.0),
            note=f"{len(times)} times: {min(times):.2f} to {max(times):.2f} s",
        ),
        Figure(
            name="longest block of the event loop meanwhile",
            value=longest.wall_ms,
            unit="ms",
            bar=Bar(most=20),
            note=f"of it {longest.cpu_ms:.1f} ms work of the loop's thread; median {usual:.1f} ms; "
            f"without a change {quietest:.1f} ms",
        ),
    ]


def _longest(blocks: Sequence[Block]) -> Block:
    return max(blocks, key=lambda block: block.wall_ms, default=Block(ended=0, wall_ms=0, cpu_ms=0))
