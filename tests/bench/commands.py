"""The duration of commands as whole processes: ``tailbone --help``, ``keys list``, those that SDKs run."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
import time
from contextlib import ExitStack, asynccontextmanager
from statistics import median
from typing import TYPE_CHECKING

from harness.devs import Dev
from harness.programs import Program
from harness.web import Page, WebServer

from tailbone.tsnet.node import Node, NodeSettings
from tests.bench.figure import Bar, Figure, compared
from tests.bench.load import IDENTITY, LoadGenerator
from tests.bench.servers import Running, TailboneServer, server_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from tests.bench.session import Session

_JOIN_S = 30.0
_AUDIENCE = "bench"
_ROLE = "arn:aws:iam::123456789012:role/bench"
ADMIN_PORT = 50051


async def measure_help(session: Session) -> list[Figure]:
    """Time ``tailbone --help``, and an empty Python program for comparison."""
    times, bare = [], []
    environment = session.environment()
    # Run it once before, so that modules are compiled as after an installation by pip.
    await _time([*session.server, "--help"], environment)
    for _ in range(session.effort.commands):
        times.append(await _time([*session.server, "--help"], environment))
        bare.append(await _time([sys.executable, "-c", "pass"], environment))
    return [_figure("tailbone --help", times, Bar(most=120), f"python alone {median(bare):.0f} ms")]


async def measure_keys(session: Session) -> list[Figure]:
    """Time ``tailbone keys list`` over the tailnet."""
    async with (
        LoadGenerator(session) as load,
        Running(TailboneServer(session, await server_key(session)), load) as server,
        admin_node(session) as node,
        await node.forward("127.0.0.1:0", f"{server.hostname}:{ADMIN_PORT}") as forward,
    ):
        host, _, port = forward.local.rpartition(":")
        command = [*session.server, "keys", "list", "--host", host, "--port", port]
        await _time(command, session.environment())
        times = [await _time(command, session.environment()) for _ in range(session.effort.commands)]
    return [_figure("tailbone keys list", times, Bar(most=400), "over a forward of the bench's own node")]


async def measure_adapters(session: Session) -> list[Figure]:
    """Time the commands that SDKs run, with a token from the issuer, from an agent, and from the cache."""
    folder = session.place("adapters")
    environment = session.environment() | {"XDG_CACHE_HOME": str(folder), "TS_SOCKET": str(folder / "none")}
    with ExitStack() as stack:
        dev = [*session.server, "dev", "--listen", "127.0.0.1:0", "-o", "json", "--audience", _AUDIENCE]
        facts = Dev(stack.enter_context(Program(dev, env=environment, cwd=folder))).facts
        issuer = {"TAILBONE_ISSUE_URL": facts["callers"]["tag:ci"]}
        path = str(folder / "agent.sock")
        agent = [*session.server, "agent", "--socket", path]
        running = stack.enter_context(Program(agent, env=environment | issuer, cwd=folder))
        await asyncio.to_thread(running.wait_for, "started")
        sts = stack.enter_context(WebServer())
        sts.pages["/"] = _credentials()
        figures = []
        for name, arguments, variables, most in (
            ("kubernetes, the issuer answers", ("kubernetes", "-a", _AUDIENCE), issuer, 250),
            ("kubernetes, an agent answers", ("kubernetes", "-a", _AUDIENCE), {"TAILBONE_AGENT": path}, 150),
            ("gcp, an agent answers", ("gcp", "-a", _AUDIENCE), {"TAILBONE_AGENT": path}, 150),
            (
                "aws, its cache answers",
                ("aws", _ROLE, "-a", _AUDIENCE, "--endpoint-url", sts.url),
                issuer,
                150,
            ),
        ):
            command = [*session.server, *arguments]
            await _time(command, environment | variables)
            times, bare = [], []
            for _ in range(session.effort.commands):
                times.append(await _time(command, environment | variables))
                bare.append(await _time([sys.executable, "-c", "pass"], environment))
            bar = Bar(most=most)
            figures.append(
                compared(f"tailbone {name} (beside python alone)", times, bare, unit="ms", bar=bar)
            )
    return figures


def _credentials() -> Page:
    """Return an answer of AWS's STS."""
    end = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = {"AccessKeyId": "a", "SecretAccessKey": "b", "SessionToken": "c", "Expiration": end}
    fields = "".join(f"<{name}>{value}</{name}>" for name, value in rows.items())
    return Page(f'<R xmlns="https://sts.amazonaws.com/doc/2011-06-15/">{fields}</R>'.encode())


@asynccontextmanager
async def admin_node(session: Session) -> AsyncIterator[Node]:
    """Join a node of the benchmark's own process to the tailnet."""
    settings = NodeSettings(
        hostname=session.name("admin"),
        dir=session.place("admin"),
        authkey=await session.devnet.add_key(IDENTITY),
        control_url=session.devnet.info.control_url,
        loopback=True,
        ignore_environment=True,
    )
    async with Node(settings) as node:
        await node.up(_JOIN_S)
        yield node


async def _time(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Return the time of a process from its start to its end, in ms."""

    def run() -> float:
        began = time.perf_counter()
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        return (time.perf_counter() - began) * 1000

    return await asyncio.to_thread(run)


def _figure(name: str, times: Sequence[float], bar: Bar, note: str) -> Figure:
    spread = f"{len(times)} times: {min(times):.0f} to {max(times):.0f} ms"
    return Figure(name=name, value=median(times), unit="ms", bar=bar, note=f"{spread}; {note}")
