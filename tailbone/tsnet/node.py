"""A tsnet node inside this process, as an async context manager over the C calls."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import msgspec

from tailbone.errors import NodeClosedError
from tailbone.process.cancellation import Closing
from tailbone.token.identity import Identity
from tailbone.tsnet.callers import Callers
from tailbone.tsnet.events import Event, EventPipe
from tailbone.tsnet.library import Library, load
from tailbone.tsnet.peername import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

_CLOSE_TIMEOUT_S = 10.0
RUNNING = "Running"
CLOSED = "Closed"
_CANCEL_AGAIN_S = 0.02


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A node's state.

    Attributes:
        state: tailscale's name of the state: ``NoState``, ``NeedsLogin``, ``NeedsMachineAuth``, ``Starting``,
            ``Running``, ``Stopped``.
        hostname: the requested name.
        dns_name: the full name that the control server assigned, without the final dot.
        tailnet: the tailnet's name.
        addresses: the node's own tailnet addresses, IPv4 first.
        node_id: the stable id.
        key_expiry: when the node must log in again, in Unix seconds; None for never.
        control_reachable: whether the control server is connected now.
        auth_url: where a person must log in; empty if that is not needed.
        health: tailscale's own warnings.
    """

    state: str
    hostname: str
    dns_name: str = ""
    tailnet: str = ""
    addresses: tuple[str, ...] = ()
    node_id: str = ""
    key_expiry: float | None = None
    control_reachable: bool = False
    auth_url: str = ""
    health: tuple[str, ...] = ()


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a node.

    Attributes:
        hostname: the name to request.
        dir: state directory; created (0700) if missing. One node at a time may use it.
        authkey: used for the first login only; afterwards the state counts.
        control_url: the control server; empty means Tailscale's.
        ephemeral: the node leaves the tailnet when it closes.
        tags: the tags to request.
        join_retry_s: pause between attempts to reach an unreachable control server, in seconds.
        loopback: adapt to a tailnet on this machine. This applies to the whole process and turns off port
            mapping, binding to the default route's interface, and waiting for a network.
        ignore_environment: ignore tsnet's own TS_ variables.
        verbose: send tsnet's own log as events.
    """

    hostname: str
    dir: Path
    authkey: str = ""
    control_url: str = ""
    ephemeral: bool = False
    tags: tuple[str, ...] = ()
    join_retry_s: float = 1.0
    loopback: bool = False
    ignore_environment: bool = False
    verbose: bool = False

    def __repr__(self) -> str:
        shown = (self.hostname, str(self.dir), self.control_url)
        return "NodeSettings(hostname={!r}, dir={!r}, control_url={!r})".format(*shown)

    def encode(self) -> bytes:
        """Encode as the JSON that ``tb_node_new`` expects."""
        return msgspec.json.encode(
            {
                "hostname": self.hostname,
                "dir": str(self.dir),
                "auth_key": self.authkey,
                "control_url": self.control_url,
                "ephemeral": self.ephemeral,
                "tags": self.tags,
                "verbose": self.verbose,
                "loopback": self.loopback,
                "ignore_env": self.ignore_environment,
                "join_retry_ms": int(self.join_retry_s * 1000),
            }
        )


class _NewNode(msgspec.Struct, frozen=True):
    peer_prefix: str
    switched_off: tuple[str, ...]


class _Bridge:
    """Base class of listeners and forwards, which close in the same way."""

    def __init__(self, library: Library, handle: int) -> None:
        self._library = library
        self._handle = handle
        self._closing = Closing()

    async def close(self, drain_s: float = 0.0) -> None:
        """Accept no more connections, end the open ones after at most ``drain_s`` seconds; idempotent."""
        await self._closing.once(lambda: self._close(drain_s))

    async def end(self, after_s: float) -> None:
        """Cut a close in progress short ``after_s`` seconds from now."""
        closing = asyncio.ensure_future(self.close())
        done, _ = await asyncio.wait([closing], timeout=after_s)
        if not done:
            await self._close(0)
        await closing

    async def _close(self, drain_s: float) -> None:
        try:
            await self._library.bridge_close(self._handle, drain_s)
        except NodeClosedError:
            return  # closed together with the node

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Listener(_Bridge):
    """A port on the tailnet that is bridged to a Unix socket."""


class Forward(_Bridge):
    """A local socket whose connections are forwarded to one peer of the tailnet.

    Attributes:
        local: its address: ``127.0.0.1:8080`` or ``unix:/path``.
    """

    def __init__(self, library: Library, handle: int, local: str) -> None:
        super().__init__(library, handle)
        self.local = local


class Node:
    """A tsnet node in this process.

    Use it as ``async with Node(settings) as node: await node.up(60)``. Leaving the context closes the node:
    first its listeners and forwards, then tsnet, each within a bounded time. Closing is idempotent and
    possible in any state. Nothing blocks the event loop; cancelling ``up`` ends the join.

    Attributes:
        switched_off: the features that the loopback settings turned off for every node of this process.
    """

    def __init__(self, settings: NodeSettings, *, on_event: Callable[[Event], None] | None = None) -> None:
        self._settings = settings
        self._on_event = on_event
        self._library: Library | None = None
        self._callers: Callers | None = None
        self._handle = 0
        self._events: EventPipe | None = None
        self._closing = Closing()
        self._peer_prefix = "\0"  # matches no peer name
        self._state = "NoState"
        self.switched_off: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """The last known state, without a call: tailscale's name of it, or ``CLOSED``."""
        return self._state

    @property
    def running(self) -> bool:
        """Whether the node is in the tailnet now."""
        return self._state == RUNNING

    async def __aenter__(self) -> Self:
        self._library = await asyncio.to_thread(load)
        self._callers = Callers(self._library)
        self._events = EventPipe(self._event)
        try:
            opened = await self._library.node_new(self._settings.encode(), self._events.writing_end)
        except BaseException:
            await self._events.close(0)
            raise
        self._events.handed_over()
        self._handle = opened.handle
        answer = msgspec.json.decode(opened.answer, type=_NewNode)
        self._peer_prefix, self.switched_off = answer.peer_prefix, answer.switched_off
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _event(self, event: Event) -> None:
        if event.type == "state" and not self._closing.begun:
            self._state = event.state
        if self._on_event is not None:
            self._on_event(event)

    def _open(self) -> Library:
        if self._library is None or self._handle == 0:
            raise NodeClosedError("the node was not entered: use it in `async with`")
        if self._closing.begun:
            raise NodeClosedError("the node is closed")
        return self._library

    async def up(self, timeout_s: float) -> NodeStatus:
        """Join the tailnet.

        Args:
            timeout_s: at most this many seconds.

        Raises:
            LoginRefusedError: the control server refused the auth key.
            LoginNeededError: nobody opened the login URL (an ``auth_url`` event) in time.
            ApprovalNeededError: the node still waits for an administrator's approval.
            ControlUnreachableError: the control server did not answer.
            JoinTimeoutError: joining took too long for another reason.
            NodeClosedError: the node was closed meanwhile.
        """
        library = self._open()
        joining = asyncio.ensure_future(library.node_up(self._handle, timeout_s))
        try:
            answer = await asyncio.shield(joining)
        except asyncio.CancelledError:
            if not joining.cancelled():
                await self._end_join(library, joining)
            raise
        status = msgspec.json.decode(answer, type=NodeStatus)
        self._state = status.state
        return status

    async def _end_join(self, library: Library, joining: asyncio.Future[bytes]) -> None:
        """Cancel a join repeatedly until it has ended: a cancel before its thread has begun does nothing."""
        while not joining.done():
            with suppress(NodeClosedError):
                library.node_cancel(self._handle)
            with suppress(asyncio.CancelledError):
                await asyncio.wait([joining], timeout=_CANCEL_AGAIN_S)
        if not joining.cancelled():
            joining.exception()  # retrieved, since asyncio would report it; a cancelled caller needs no error

    async def status(self) -> NodeStatus:
        """Return the node's current state."""
        answer = await self._open().node_status(self._handle)
        status = msgspec.json.decode(answer, type=NodeStatus)
        if not self._closing.begun:
            # Events are lost while their pipe is full.
            self._state = status.state
        return status

    async def listen(
        self,
        name: str,
        port: int,
        unix_path: Path,
        *,
        addresses: Sequence[str] = (),
        max_connections: int = 1024,
        max_bytes_per_s: int = 0,
    ) -> Listener:
        """Bridge a port of this node to a Unix socket on which a server listens.

        Args:
            name: short name of the listener, 1 to 12 of ``a-z0-9-``.
            port: 1 to 65535.
            unix_path: the socket's path.
            addresses: the node's tailnet addresses to listen on; empty means all.
            max_connections: connections at a time, up to a quarter (at least 16) per address; more are reset.
            max_bytes_per_s: bytes per second that one address may send after a burst of 128 KiB; more are
                delayed. 0 means no limit.

        Raises:
            TailnetError: an address is not one of the node's, or the node is not up.
            AddressInUseError: the node already listens on that port.
        """
        library = self._open()
        config = {
            "name": name,
            "port": port,
            "addresses": list(addresses),
            "unix_path": str(unix_path),
            "max_connections": max_connections,
            "max_bytes_per_s": max_bytes_per_s,
        }
        opened = await library.listen(self._handle, msgspec.json.encode(config))
        return Listener(library, opened.handle)

    async def forward(self, local: str, remote: str, *, wait_s: float = 10.0) -> Forward:
        """Open a local socket whose connections are forwarded to a peer.

        Args:
            local: loopback ``host:port`` (port 0 picks a free one), or ``unix:/path``.
            remote: ``peer:port``; the peer is a short or full name, or a tailnet address.
            wait_s: how many seconds the peer may take to appear in the netmap.

        Raises:
            PeerNotFoundError: the tailnet has no such peer; a forward never leaves the tailnet.
            AddressInUseError: the local port or path is in use.
        """
        library = self._open()
        config = {"local": local, "remote": remote, "wait_ms": int(wait_s * 1000)}
        opened = await library.forward(self._handle, msgspec.json.encode(config))
        return Forward(
            library, opened.handle, msgspec.json.decode(opened.answer, type=dict[str, str])["local"]
        )

    def whois(self, source: str) -> Identity:
        """Return a peer, from the node's own state: in microseconds, uncached.

        Args:
            source: ``ip``, ``ip:port``, or a peer's short or full name.

        Raises:
            UnknownCallerError: no node of this tailnet has that address.
            PeerNotFoundError: the name does not mean one peer.
        """
        if self._library is None or self._closing.begun:
            raise NodeClosedError("the node is closed")
        return Identity.decode(self._library.whois(self._handle, source.encode()))

    def identify(self, peer: object) -> Identity:
        """Return the caller of a bridged connection, as of the last bytes that arrived on it.

        Args:
            peer: the peer's name from Sanic (``transport.get_extra_info("peername")``) or gRPC
                (``context.peer()``).

        Raises:
            UnknownCallerError: this tailnet does not know the caller.
        """
        name = parse(peer, self._peer_prefix)
        if name.slot is not None and self._callers is not None and not self._closing.begun:
            identity = self._callers.identity(name.slot)
            if identity is not None:
                return identity
        return self.whois(name.source)

    async def close(self, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        """Close listeners and forwards, then the node; also possible during ``up``; idempotent.

        Raises:
            TailnetError: tsnet did not close within ``timeout_s`` seconds; parts of it may still run.
        """
        library = self._library
        if library is not None and self._handle != 0:
            await self._closing.once(lambda: self._close(library, timeout_s))

    async def _close(self, library: Library, timeout_s: float) -> None:
        self._state = CLOSED
        try:
            await library.node_close(self._handle, timeout_s)
        finally:
            if self._events is not None:
                await self._events.close(1.0)
