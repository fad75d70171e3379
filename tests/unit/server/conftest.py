"""A real IssuerServer on a real Unix socket, real keys, and clients that send raw bytes."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from harness.settings import issuer_settings

from tailbone.counting import IssuerCounts
from tailbone.errors import Problem, UnknownCallerError
from tailbone.keys.signing_key import SigningKey
from tailbone.keys.view import KeyRing
from tailbone.process.audit_log import AuditLog
from tailbone.server import AllowedHosts, Endpoints, IssuerServer, Probes, RateLimit
from tailbone.token.identity import Identity
from tailbone.token.issuer import Issuer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tailbone.keys.listing import KeyInfo
    from tailbone.server.probes import Page

HOSTS = frozenset(
    {"100.64.0.1", "fd7a:115c:a1e0::1", "tailbone", "tailbone.dev.tailnet.test", "127.0.0.1:8080"}
)
SETTINGS = issuer_settings(issuer="https://issuer.example", expiry_s=1200, audiences=("sts.example",))
PERSON = Identity(
    node_id="nStable",
    node="laptop.dev.tailnet.test",
    user_id=123,
    login="dev@example.com",
    display_name="Dev",
)
JWKS = b'{"keys":[]}'

_numbers = itertools.count()


class Line(NamedTuple):
    """A log line."""

    level: str
    event: str
    fields: dict[str, Any]


class MemoryLog:
    """A logger that keeps its lines; a full disk can be had."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.fails: Exception | None = None

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if self.fails is not None:
            raise self.fails
        self.lines.append(Line(level, event, fields))

    def trace(self, event: str, **fields: Any) -> None:
        self._write("trace", event, fields)

    def debug(self, event: str, **fields: Any) -> None:
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write("warn", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._write("error", event, fields)

    exception = error

    def bind(self, **fields: Any) -> MemoryLog:
        raise NotImplementedError(fields)

    def of(self, event: str) -> list[Line]:
        """Its lines about one event."""
        return [line for line in self.lines if line.event == event]


class GatedKey:
    """A real key whose signatures wait for ``gate``, as those of a key in another process might."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self.kid, self.algorithm, self.signs_inline = key.kid, key.algorithm, False
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.waiting = 0

    async def sign(self, data: bytes) -> bytes:
        self.asked.set()
        self.waiting += 1
        await self.gate.wait()
        return await self._key.sign(data)


class World:
    """What the server's surroundings say; a test changes what it is about."""

    def __init__(self, key: SigningKey) -> None:
        self.key = key
        self.signing: Any = key
        self.settings = SETTINGS
        self.caller: Identity | Exception = PERSON
        self.asked_for: list[Any] = []
        self.reasons: list[Problem] = []
        self.notes: list[Problem] = []
        self.jwks: bytes | None = JWKS
        self.is_url = True
        self.keys: list[KeyInfo] = []
        self.rate_limit = RateLimit(0)
        self.log = MemoryLog()
        self.audit = MemoryLog()
        self.trail = MemoryLog()
        self.counts = IssuerCounts()
        self.metrics: Callable[[str], Page] | None = None
        self.endpoints: Endpoints

    def ring(self) -> KeyRing:
        return KeyRing(signing=self.signing)

    def identify(self, peername: Any) -> Identity:
        self.asked_for.append(peername)
        if isinstance(self.caller, Exception):
            raise self.caller
        return self.caller

    def discovery(self, jwks: bytes) -> bytes:
        return b'{"of":' + jwks + b"}"

    def gate(self) -> GatedKey:
        """Let signatures wait until the test opens the gate."""
        self.signing = GatedKey(self.key)
        return self.signing

    def server(self) -> IssuerServer:
        """A server in this world; not yet started."""
        audit = AuditLog(self.audit)  # type: ignore[arg-type]
        self.endpoints = Endpoints(
            issuer=Issuer(self.settings, self.ring, clock=lambda: 1795518230.5),
            identify=self.identify,
            rate_limit=self.rate_limit,
            roles=lambda identity: ["viewer"],
            hosts=AllowedHosts(HOSTS),
            probes=Probes(
                readiness=lambda: [*self.reasons, *audit.reasons()],
                notes=lambda: self.notes,
                version="1.2.3",
                commit="abc1234",
                metrics=self.metrics,
            ),
            counts=self.counts,
            published_jwks=lambda: self.jwks,
            discovery_of=self.discovery if self.is_url else None,
            max_age_s=300.0,
            audit=audit,
            keys=lambda: self.keys,
            clock=lambda: 1795518230.5,
        )
        return IssuerServer(self.endpoints, self.log, self.counts, self.trail)  # type: ignore[arg-type]


class Response(NamedTuple):
    """An answer, taken apart."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def end(self) -> None:
        """Send no more, and go on reading."""
        self.writer.write_eof()

    async def response(self, *, head_only: bool = False) -> Response:
        """Read one answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
        fields = {name.title(): value for name, value in (line.split(": ", 1) for line in head[1:-2])}
        assert len(fields) == len(head) - 3, "a field is repeated"
        body = b""
        if not head_only and "Content-Length" in fields:
            body = await self.reader.readexactly(int(fields["Content-Length"]))
        return Response(int(head[0].split(" ")[1]), fields, body)

    async def ask(self, data: bytes) -> Response:
        self.send(data)
        return await self.response()

    async def rest(self) -> bytes:
        """Everything until the server ends its side."""
        return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()


class Running:
    """A started server, and how to connect to it."""

    def __init__(self, server: IssuerServer, world: World, path: str) -> None:
        self.server, self.world, self.path = server, world, path
        self._clients: list[Client] = []

    async def connect(self) -> Client:
        """Connect as the bridge does: from an abstract name that says who the caller is."""
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        sock.bind(f"\0tailnet/{os.getpid():016x}/http/100.64.0.2:50123/{next(_numbers)}")
        await asyncio.get_running_loop().sock_connect(sock, self.path)
        client = Client(*await asyncio.open_unix_connection(sock=sock))
        self._clients.append(client)
        return client

    async def ask(self, data: bytes) -> Response:
        """Send ``data`` on a new connection and read one answer."""
        return await (await self.connect()).ask(data)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the server has got so far; the test's time limit is the bound."""
        while not condition():
            await asyncio.sleep(0.001)

    async def end(self) -> None:
        for client in self._clients:
            await client.close()
        await self.server.close(0.0)


@pytest.fixture(scope="session")
def key() -> SigningKey:
    """One real RSA key for all."""
    return SigningKey.generate("tb-1795518000", algorithm="RS256", size=2048, created_at=1795518000)


@pytest.fixture
def world(key: SigningKey) -> World:
    return World(key)


@pytest.fixture
def start(tmp_path: Path) -> Callable[[World], AbstractAsyncContextManager[Running]]:
    """Start a server in a world."""

    @asynccontextmanager
    async def started(world: World) -> AsyncIterator[Running]:
        path = tmp_path / f"issuer-{next(_numbers)}"
        server = world.server()
        await server.start(path)
        running = Running(server, world, str(path))
        try:
            yield running
        finally:
            await running.end()

    return started


@pytest.fixture
async def running(
    start: Callable[[World], AbstractAsyncContextManager[Running]], world: World
) -> AsyncIterator[Running]:
    """A started server."""
    async with start(world) as server:
        yield server


@pytest.fixture
def nobody() -> UnknownCallerError:
    """What identify raises for an address that no node has."""
    return UnknownCallerError("no node of this tailnet has your address", detail="100.64.0.99:1")
