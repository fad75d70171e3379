"""Node and Devnet in this process: what they promise from start to close."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from harness.leaks import NothingLeft
from harness.tailnet import EVERYTHING
from harness.waiting import until_async

from tailbone.errors import (
    AddressInUseError,
    ControlUnreachableError,
    NodeClosedError,
    PeerNotFoundError,
    TailnetError,
    UnknownCallerError,
)
from tailbone.tsnet.callers import Callers
from tailbone.tsnet.devnet import Devnet
from tailbone.tsnet.library import Library, load, stats
from tailbone.tsnet.node import Node, NodeSettings
from tailbone.tsnet.peername import parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from tailbone.token.identity import Identity
    from tailbone.tsnet.events import Event

    Settings = Callable[..., Coroutine[Any, Any, NodeSettings]]


@pytest.fixture
async def devnet(tmp_path: Path) -> AsyncIterator[Devnet]:
    """A tailnet for one test."""
    async with Devnet() as own:
        await own.set_grants([EVERYTHING])
        yield own


@pytest.fixture
def settings(devnet: Devnet, tmp_path: Path) -> Settings:
    """Create the settings of a node that can join."""

    async def make(hostname: str, identity: str = "dev@example.com", **options: Any) -> NodeSettings:
        fields: dict[str, Any] = {
            "hostname": hostname,
            "dir": tmp_path / hostname,
            "authkey": await devnet.add_key(identity),
            "control_url": devnet.info.control_url,
            "loopback": True,
            "ignore_environment": True,
        }
        return NodeSettings(**fields | options)

    return make


async def test_nothing_is_left(tmp_path: Path) -> None:
    """A tailnet with two nodes, a listener and a forward leaks no handle, descriptor or goroutine."""

    async def live(folder: Path) -> None:
        async with Devnet() as devnet:
            await devnet.set_grants([EVERYTHING])
            key = await devnet.add_key("dev@example.com")
            both = [
                NodeSettings(
                    hostname=name,
                    dir=folder / name,
                    authkey=key,
                    control_url=devnet.info.control_url,
                    loopback=True,
                    ignore_environment=True,
                )
                for name in ("one", "two")
            ]
            async with Node(both[0]) as one, Node(both[1]) as two:
                await one.up(20)
                await two.up(20)
                path = folder / "socket"
                server = await asyncio.start_unix_server(_echo, path)
                async with server, await one.listen("echo", 7, path):
                    forward = await two.forward("127.0.0.1:0", "one:7")
                    assert await _ask(forward.local, b"hello") == b"hello"

    await live(tmp_path / "first")
    with NothingLeft():
        await live(tmp_path / "second")


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read(100))
    await writer.drain()
    writer.close()


async def _ask(address: str, question: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(question)
    answer = await reader.read(100)
    writer.close()
    await writer.wait_closed()
    return answer


async def test_event_loop_runs_during_up(devnet: Devnet, settings: Settings) -> None:
    """While a node waits for a silent control server, other coroutines run; the error names the server."""
    wanted = await settings("waiting")
    await devnet.do("pause_control")
    async with Node(wanted) as node:
        joining = asyncio.ensure_future(node.up(0.5))
        ticks = 0
        while not joining.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 10
        with pytest.raises(ControlUnreachableError) as failure:
            await joining
        assert devnet.info.control_url in failure.value.message
    await devnet.do("resume_control")


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.02, 0.3])
async def test_cancelled_up_stops(devnet: Devnet, settings: Settings, after_s: float) -> None:
    """A cancelled up ends at once, even before its thread has begun; the node can be closed."""
    wanted = await settings("cancelled")
    await devnet.do("pause_control")
    loop = asyncio.get_running_loop()
    async with Node(wanted) as node:
        joining = asyncio.ensure_future(node.up(60))
        await asyncio.sleep(after_s)
        began = loop.time()
        joining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joining
        assert loop.time() - began < 2
    await devnet.do("resume_control")


async def test_up_again_after_a_cancelled_one(devnet: Devnet, settings: Settings) -> None:
    """A node can join after a cancelled attempt."""
    async with Node(await settings("again")) as node:
        joining = asyncio.ensure_future(node.up(60))
        await asyncio.sleep(0)
        joining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joining
        assert (await node.up(20)).state == "Running"


async def test_close_during_up(devnet: Devnet, settings: Settings) -> None:
    """A close ends a join in progress with NodeClosedError."""
    wanted = await settings("closed")
    await devnet.do("pause_control")
    async with Node(wanted) as node:
        joining = asyncio.ensure_future(node.up(60))
        await asyncio.sleep(0.05)
        await node.close()
        with pytest.raises(NodeClosedError):
            await joining
    await devnet.do("resume_control")


async def test_close_is_idempotent(settings: Settings, tmp_path: Path) -> None:
    """A second close, or two at once, wait for the first; all later calls are refused."""
    async with Node(await settings("twice")) as node:
        status = await node.up(20)
        assert node.running
        await asyncio.gather(node.close(), node.close())
        await node.close()
        assert not node.running
        for work in (lambda: node.up(1), node.status, lambda: node.listen("x", 80, tmp_path)):
            with pytest.raises(NodeClosedError):
                await work()
        with pytest.raises(NodeClosedError):
            node.whois(status.addresses[0])


async def test_node_that_was_never_up_closes(settings: Settings) -> None:
    """A node that only entered its context leaks nothing."""
    async with Node(await settings("idle")):
        pass


async def test_node_outside_of_its_context(tmp_path: Path) -> None:
    """The error says that the context was not entered."""
    node = Node(NodeSettings(hostname="x", dir=tmp_path))
    with pytest.raises(NodeClosedError, match="was not entered"):
        await node.up(1)


async def test_whois(devnet: Devnet, settings: Settings) -> None:
    """whois knows the node's peers by address, with or without a port, and no other address."""
    async with Node(await settings("asking")) as asking, Node(await settings("tagged", "tag:ci")) as tagged:
        await asking.up(20)
        status = await tagged.up(20)
        forward = await asking.forward("127.0.0.1:0", "tagged:1")  # waits until the peer is known
        await forward.close()
        for address in status.addresses:
            identity = asking.whois(address)
            assert (identity.node, identity.tags, identity.user_id) == (
                "tagged.dev.tailnet.test",
                ("tag:ci",),
                0,
            )
        assert asking.whois(f"{status.addresses[0]}:1234").node_id == status.node_id
        for stranger in ("100.100.100.100", "192.0.2.1:80", "[2001:db8::1]:80"):
            with pytest.raises(UnknownCallerError):
                asking.whois(stranger)


async def test_identify_takes_only_bridged_connections(settings: Settings) -> None:
    """A local process that connects to the socket directly is unknown, whatever its peer name."""
    async with Node(await settings("guarded")) as node:
        status = await node.up(20)
        source = f"{status.addresses[0]}:1"
        for peer in (b"", None, b"\0", b"/run/x", f"\0tailnet/0123456789abcdef/issuer/{source}/1".encode()):
            with pytest.raises(UnknownCallerError):
                node.identify(peer)


@pytest.fixture
async def bridged(devnet: Devnet, settings: Settings, tmp_path: Path) -> AsyncIterator[Bridged]:
    """A node with a listener whose server records each connection's peer name, and a client of it."""
    async with Node(await settings("serving")) as serving, Node(await settings("calling")) as calling:
        await serving.up(20)
        await calling.up(20)
        peers: asyncio.Queue[bytes] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while piece := await reader.read(100):
                peers.put_nowait(writer.get_extra_info("peername"))
                writer.write(piece)
            writer.close()

        path = tmp_path / "socket"
        server = await asyncio.start_unix_server(serve, path)
        async with (
            server,
            await serving.listen("echo", 7, path),
            await calling.forward("127.0.0.1:0", "serving:7") as route,
        ):
            yield Bridged(serving, route.local, peers)


class Bridged(NamedTuple):
    node: Node
    address: str
    peers: asyncio.Queue[bytes]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self.address.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def caller(self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
        """Send bytes on the connection, and return the peer name that the server saw."""
        reader, writer = connection
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        return await self.peers.get()

    async def until_granted(self, address: str, capabilities: dict[str, tuple[str, ...]]) -> None:
        """Wait until the node has received that a caller has these capabilities."""
        await until_async(lambda: self.node.whois(address).capabilities == capabilities)


def in_table(peer: bytes) -> Identity | None:
    """Return the identity in the table of callers for a connection."""
    slot = parse(peer, f"tailnet/{peer.split(b'/')[1].decode()}/").slot
    assert slot is not None
    return Callers(load()).identity(slot)


async def test_a_changed_grant_counts_at_once_on_a_kept_connection(devnet: Devnet, bridged: Bridged) -> None:
    """The first bytes after the node has received the change carry it, without a call of whois."""
    connection = await bridged.connect()
    peer = await bridged.caller(connection)
    before = bridged.node.identify(peer)
    assert (before.node, before.capabilities) == ("calling.dev.tailnet.test", {})
    assert in_table(peer) == before == bridged.node.whois(before.addresses[0])
    for value in range(5):
        grant = {"src": ["*"], "dst": ["serving"], "app": {"example.com/cap/x": [value]}}
        await devnet.set_grants([EVERYTHING, grant])
        wanted = {"example.com/cap/x": (str(value),)}
        await bridged.until_granted(before.addresses[0], wanted)
        assert await bridged.caller(connection) == peer
        assert bridged.node.identify(peer).capabilities == wanted
        after = in_table(peer)
        assert after is not None
        assert after.capabilities == wanted
    connection[1].close()


async def test_a_request_does_not_call_into_go(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread in Go would hold Go's only processor for milliseconds, while the bridge waits."""
    connection = await bridged.connect()
    peer = await bridged.caller(connection)

    def no_call(*arguments: object) -> bytes:
        raise AssertionError(f"whois was called with {arguments}")

    with monkeypatch.context() as patched:
        patched.setattr(Library, "whois", no_call)
        assert bridged.node.identify(peer).node == "calling.dev.tailnet.test"
    connection[1].close()


@pytest.mark.parametrize(("length", "in_the_table"), [(15_000, True), (20_000, False)])
async def test_an_answer_that_is_too_long_for_the_table_is_asked_for(
    devnet: Devnet, bridged: Bridged, length: int, in_the_table: bool
) -> None:
    """An identity is complete even if it does not fit into a slot."""
    connection = await bridged.connect()
    before = bridged.node.identify(await bridged.caller(connection))
    grant = {"src": ["*"], "dst": ["serving"], "app": {"example.com/cap/x": ["y" * length]}}
    await devnet.set_grants([EVERYTHING, grant])
    wanted = {"example.com/cap/x": ('"' + "y" * length + '"',)}
    await bridged.until_granted(before.addresses[0], wanted)
    peer = await bridged.caller(connection)
    assert bridged.node.identify(peer).capabilities == wanted
    assert (in_table(peer) is not None) == in_the_table
    connection[1].close()


async def test_a_connection_that_has_ended_never_shows_the_next_caller(bridged: Bridged) -> None:
    """The next connection reuses its slot; the ended connection's name then leads to whois."""
    first = await bridged.connect()
    ended = await bridged.caller(first)
    first[1].close()
    await until_async(lambda: stats().connections == 0)
    second = await bridged.connect()
    peer = await bridged.caller(second)
    assert peer.rpartition(b".")[0].rpartition(b"/")[2] == ended.rpartition(b".")[0].rpartition(b"/")[2]
    assert in_table(ended) is None
    assert in_table(peer) == bridged.node.identify(ended)
    second[1].close()


@pytest.mark.parametrize(
    "remote", ["192.0.2.1:80", "example.com:80", "127.0.0.1:80", "localhost:80", "other:80"]
)
async def test_forward_never_leaves_the_tailnet(settings: Settings, remote: str) -> None:
    """A name or address that is not a peer's is an error, and never reaches the host's network."""
    async with Node(await settings("forwarding")) as node:
        await node.up(20)
        with pytest.raises(PeerNotFoundError):
            await node.forward("127.0.0.1:0", remote, wait_s=0.05)


async def test_forward_to_a_port_in_use(settings: Settings) -> None:
    """The error names the local port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with Node(await settings("first")) as node, Node(await settings("peer")) as peer:
            await node.up(20)
            await peer.up(20)
            with pytest.raises(AddressInUseError, match=str(port)):
                await node.forward(f"127.0.0.1:{port}", "peer:80")
            with pytest.raises(TailnetError, match="is not a loopback address"):
                await node.forward("0.0.0.0:0", "peer:80")


async def test_listen_where_the_node_does_not_live(settings: Settings, tmp_path: Path) -> None:
    """An address that is not the node's is refused, and so is a port in use."""
    async with Node(await settings("listening")) as node:
        status = await node.up(20)
        with pytest.raises(TailnetError, match=r"127\.0\.0\.1 is not an address of this node"):
            await node.listen("x", 80, tmp_path / "x", addresses=["127.0.0.1"])
        await node.listen("x", 80, tmp_path / "x", addresses=[status.addresses[0]])
        await node.listen("y", 80, tmp_path / "y", addresses=[status.addresses[1]])
        with pytest.raises(AddressInUseError):
            await node.listen("z", 80, tmp_path / "z")


async def test_login_url_is_an_event(devnet: Devnet, settings: Settings) -> None:
    """A node without a key reports the URL; it runs once a person has logged in there."""
    urls: asyncio.Queue[str] = asyncio.Queue()

    def received(event: Event) -> None:
        if event.type == "auth_url":
            urls.put_nowait(event.url)

    async with Node(await settings("login", authkey=""), on_event=received) as node:
        joining = asyncio.ensure_future(node.up(20))
        url = await asyncio.wait_for(urls.get(), 10)
        await devnet.do("complete_login", url=url, identity="dev@example.com")
        assert (await joining).state == "Running"


async def test_devnet_errors_name_what_is_allowed(devnet: Devnet) -> None:
    """Unknown commands, arguments and nodes are errors that name what is allowed."""
    with pytest.raises(TailnetError, match="allowed are add_key"):
        await devnet.do("nonsense")
    with pytest.raises(TailnetError, match="unknown field"):
        await devnet.do("add_key", identity="a@example.com", colour="red")
    with pytest.raises(TailnetError, match="no node"):
        await devnet.do("expire_node", node="nobody")


async def test_devnet_stop_is_idempotent(devnet: Devnet) -> None:
    """It can be stopped twice, also at once; later commands are refused."""
    await asyncio.gather(devnet.stop(), devnet.stop())
    await devnet.stop()
    with pytest.raises(NodeClosedError):
        await devnet.nodes()


async def test_cancelled_start_of_a_tailnet_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that is cancelled while its call is in Go leaves no tailnet running."""
    before, loop, real = stats().handles, asyncio.get_running_loop(), Library._open

    def cancel_and_open(self: Library, *arguments: Any) -> Any:
        loop.call_soon_threadsafe(starting.cancel)  # comes before the end of the call
        return real(self, *arguments)

    monkeypatch.setattr(Library, "_open", cancel_and_open)
    starting = asyncio.ensure_future(Devnet().__aenter__())
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert stats().handles == before


FORKED = """
import asyncio, os, sys
from tailbone.errors import ForkedError
from tailbone.tsnet import library
from tailbone.tsnet.devnet import Devnet
library.stats()
child = os.fork()
if child == 0:
    for call in (library.stats, lambda: asyncio.run(Devnet().__aenter__())):
        try:
            call()
        except ForkedError as error:
            print(error.code, error.message)
    sys.stdout.flush()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), library.stats().handles)
"""


def test_fork_is_refused() -> None:
    """In a forked child every call is refused, with advice; the parent is not affected."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    refused = (
        "forked the native library does not survive a fork; start processes with subprocess, "
        "or multiprocessing's 'spawn'"
    )
    assert done.stdout.splitlines() == [refused, refused, "7 0"]
    assert done.stderr == ""
