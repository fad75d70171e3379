"""A real admin server behind a bridge like the node's: each connection comes in under an abstract name.

The fixtures are for the tests of the admin API and of the commands that use it; their conftests import them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

import grpc
import pytest

from harness.log import Lines
from harness.relay import relay
from harness.settings import issuer_settings, key_settings
from tailbone.admin._proto import admin_pb2_grpc
from tailbone.admin.access import Access
from tailbone.admin.service import AdminServer, ServerStatus
from tailbone.errors import PeerNotFoundError, UnknownCallerError, UnknownKeyError
from tailbone.jwks.directory import DirectoryStore
from tailbone.keys.folder import KeyFolder
from tailbone.keys.lifecycle import KeyLifecycle
from tailbone.keys.listing import KeyInfo
from tailbone.process.log import get_logger
from tailbone.token.explain import Explanation, explain
from tailbone.token.identity import Identity
from tailbone.token.void_rules import VoidRules

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tailbone.admin.service import Lifecycle
    from tailbone.token.policy import IssuerSettings, TokenRequest

DEV = Identity(node_id="nDev", node="laptop.dev.tailnet.test", user_id=123, login="dev@example.com")
CI = Identity(node_id="nCi", node="ci.dev.tailnet.test", tags=("tag:ci",))
CAPABILITY = "tailbone.dev/cap/admin"
JWKS = "jwks.json"

_numbers = itertools.count()


def info(key_id: str, **facts: Any) -> KeyInfo:
    """Return a key as a lifecycle lists it."""
    usual = {"algorithm": "RS256", "created_at": 1795518230, "state": "active"}
    return KeyInfo(key_id=key_id, **usual | facts)


class MemoryLifecycle:
    """Keys in a dict; its next call can be made to fail, or to wait for ``gate``."""

    def __init__(self) -> None:
        self.keys: dict[str, KeyInfo] = {"tb-1795518230": info("tb-1795518230")}
        self.asked: list[tuple[Any, ...]] = []
        self.fails: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()

    async def _pass(self, *call: Any) -> None:
        self.asked.append(call)
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails

    async def generate(self, algorithm: str | None = None, size: int | None = None) -> KeyInfo:
        await self._pass("generate", algorithm, size)
        made = info(f"tb-{1795518231 + len(self.keys)}", algorithm=algorithm or "RS256", state="published")
        self.keys[made.key_id] = made
        return made

    async def list_keys(self) -> tuple[KeyInfo, ...]:
        await self._pass("list")
        return tuple(self.keys.values())

    async def remove(self, kid: str) -> tuple[KeyInfo, ...]:
        await self._pass("remove", kid)
        if self.keys.pop(kid, None) is None:
            raise UnknownKeyError("no such key")
        return tuple(self.keys.values())


class CallLines(Lines):
    """A log of the admin API."""

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The fields of the lines about calls."""
        return [facts for _, event, facts in self.lines if event == "admin call"]


def explain_with(settings: IssuerSettings) -> Callable[[Identity, TokenRequest], Explanation]:
    """Return what an issuer with these settings explains."""
    return lambda node, request: explain(node, request, settings, now=1795518230.5, expiry_s=1200)


class Running:
    """An admin server, the loopback port that leads to it, and what its node knows of callers."""

    def __init__(self) -> None:
        self.lifecycle = MemoryLifecycle()
        self.log = CallLines()
        self.calls: Counter[str] = Counter()
        self.caller: Identity | None = DEV
        self.peers: list[str] = []
        self.nodes: list[Identity] = [DEV, CI]
        self.settings = issuer_settings(issuer="https://issuer.example", expiry_s=1200)
        self.port = 0
        self.server: AdminServer

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def find(self, node: str) -> Identity:
        """Return the node with that short name or address."""
        for peer in self.nodes:
            if node in (peer.node.partition(".")[0], *peer.addresses):
                return peer
        if node[0].isdigit():
            raise UnknownCallerError("the tailnet knows nobody at your address")
        raise PeerNotFoundError(f'"{node}" is not a peer of this tailnet')

    def identify(self, peer: str) -> Identity:
        self.peers.append(peer)
        name = unquote(peer.removeprefix("unix-abstract:"))
        if self.caller is None or not name.startswith("tailnet/"):
            raise UnknownCallerError("the tailnet knows nobody at your address")
        return self.caller


@asynccontextmanager
async def bridge(path: Path) -> AsyncIterator[int]:
    """Bridge a loopback port to a Unix socket as the node does, and yield the port."""
    relays: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = socket.socket(socket.AF_UNIX)
        inner.setblocking(False)
        port = writer.get_extra_info("peername")[1]
        inner.bind(f"\0tailnet/00112233aabbccdd/admin/[fd7a:115c:a1e0::2]:{port}/{next(_numbers)}")
        try:
            inner.connect(str(path))
        except OSError:
            # The server has closed, and so has its listener on the tailnet.
            inner.close()
            writer.close()
            return
        inner_reader, inner_writer = await asyncio.open_unix_connection(sock=inner)
        for task in (
            asyncio.create_task(relay(reader, inner_writer)),
            asyncio.create_task(relay(inner_reader, writer)),
        ):
            relays.add(task)
            task.add_done_callback(relays.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in relays:
            task.cancel()
        await asyncio.gather(*relays, return_exceptions=True)


@asynccontextmanager
async def running(
    folder: Path,
    *,
    access: Literal["acl", "grant"] = "acl",
    lifecycle: Lifecycle | None = None,
    status: Callable[[], ServerStatus] = ServerStatus,
    audit: Any = None,
) -> AsyncIterator[Running]:
    """Start an admin server and its bridge, over keys in memory or a lifecycle that the test brings."""
    run = Running()
    run.server = AdminServer(
        lifecycle=lifecycle or run.lifecycle,
        identify=run.identify,
        find=run.find,
        explain=explain_with(run.settings),
        access=Access(mode=access, capability=CAPABILITY),
        void_rules=VoidRules(run.log),  # type: ignore[arg-type]
        status=status,
        calls=run.calls,
        log=run.log,
        audit=audit or run.log,
    )
    path = folder / f"admin-{next(_numbers)}.sock"
    await run.server.start(path)
    try:
        async with bridge(path) as run.port:
            yield run
    finally:
        await run.server.close(0.0)


@pytest.fixture
def start_admin(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Running]]:
    """Start admin servers with the settings of the test."""
    return lambda **facts: running(tmp_path, **facts)


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Running]:
    """An admin server with access by ACL, the default."""
    async with running(tmp_path) as started:
        yield started


@pytest.fixture
async def granting(tmp_path: Path) -> AsyncIterator[Running]:
    """An admin server with access by grant."""
    async with running(tmp_path, access="grant") as started:
        yield started


class Admin:
    """A server over real keys, its folder, and what it has published."""

    def __init__(self, folder: Path, bucket: Path) -> None:
        self.folder = folder
        self.bucket = bucket
        self.run: Running
        self.keys: KeyLifecycle

    @property
    def published(self) -> list[str]:
        document = json.loads((self.bucket / JWKS).read_bytes())
        return [key["kid"] for key in document["keys"]]

    async def call(self, method: str, request: Any) -> Any:
        async with grpc.aio.insecure_channel(self.run.address) as channel:
            return await getattr(admin_pb2_grpc.AdminServiceStub(channel), method)(request)

    async def refusal(self, method: str, request: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(method, request)
        return caught.value.code(), caught.value.details() or ""


@pytest.fixture
async def admin(tmp_path: Path, start_admin: Callable[..., Any]) -> AsyncIterator[Admin]:
    """A server that has made and published its first key."""
    started = Admin(tmp_path / "keys", tmp_path / "bucket")
    async with KeyLifecycle(
        folder=KeyFolder(started.folder),
        store=DirectoryStore(started.bucket),
        path=JWKS,
        settings=key_settings(),
        log=get_logger(),
    ) as started.keys:
        await started.keys.sync()
        async with start_admin(
            lifecycle=started.keys,
            status=lambda: ServerStatus(
                signing_key_id=started.keys.ring.require().kid,
                reasons=started.keys.reasons(),
                notes=started.keys.notes(),
            ),
        ) as started.run:
            yield started


class GoServer:
    """A server like the Go program: proto3 bytes made by hand, without later fields and methods."""

    KEY = b"\x0a\x0dtb-1795518230\x12\x05RS256\x20\x96\xde\x95\xd8\x06"

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self.fails = ""
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _method(self, name: str) -> Any:
        async def answer(request: bytes, context: Any) -> bytes:
            self.requests.append((name, request))
            if self.fails:
                # grpc-go sends an error without a status as UNKNOWN, with its text.
                await context.abort(grpc.StatusCode.UNKNOWN, self.fails)
            return bytes([0x0A, len(self.KEY)]) + self.KEY

        return grpc.unary_unary_rpc_method_handler(answer)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[GoServer]:
        """Serve on a loopback port."""
        names = ("GenerateNewKeys", "ListKeys", "RemoveKey")
        methods = {name: self._method(name) for name in names}
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("proto.AdminService", methods),)
        )
        self.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)


@pytest.fixture
async def go_server() -> AsyncIterator[GoServer]:
    """A Go server's admin API."""
    async with GoServer().serving() as server:
        yield server


@pytest.fixture
async def http_port() -> AsyncIterator[int]:
    """A port on which HTTP/1.1 answers 404 to everything, as an issuer's does."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """A port that accepts connections and never answers."""
    writers = []
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for writer in writers:
        writer.close()


@pytest.fixture
def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without a proxy."""
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
