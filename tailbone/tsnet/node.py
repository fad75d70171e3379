"""Node: a tsnet node inside this process, as an async context manager over the C calls."""

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
        state: tailscale's own word: ``NoState``, ``NeedsLogin``, ``NeedsMachineAuth``, ``Starting``,
            ``Running``, ``Stopped``.
        hostname: the name that was asked for.
        dns_name: the full name that the control server gave, without the final dot.
        tailnet: the tailnet's name.
        addresses: the node's own tailnet addresses, IPv4 first.
        node_id: stable id.
        key_expiry: when the node must log in again, unix seconds; None for never.
        control_reachable: the control server is connected now.
        auth_url: where a person must log in; empty where nobody must.
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
    """What a node is made from.

    Attributes:
        hostname: the name to ask for.
        dir: state directory; made (0700) if missing. One node at a time may use it.
        authkey: for the first login only; afterwards the state counts.
        control_url: empty means Tailscale's.
        ephemeral: the node leaves the tailnet when it closes.
        tags: tags to ask for.
        join_retry_s: pause between attempts to reach an unreachable control server, seconds.
        loopback: the settings of a tailnet on this machine. They hold for the whole process and switch
            off port mapping, binding to the default route's interface, and waiting for a network.
        ignore_environment: take nothing from tsnet's own TS_ variables.
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
        """The JSON that ``tb_node_new`` reads."""
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


class _Made(msgspec.Struct, frozen=True):
    peer_prefix: str
    switched_off: tuple[str, ...]


class _Part:
    """A listener or a forward: what they share is how they close."""

    def __init__(self, library: Library, handle: int) -> None:
        self._library = library
        self._handle = handle
        self._closing = Closing()

    async def close(self, drain_s: float = 0.0) -> None:
        """Take no further connection, give those there are ``drain_s`` seconds, end the rest; idempotent."""
        await self._closing.once(lambda: self._close(drain_s))

    async def end(self, after_s: float) -> None:
        """End a close that is under way ``after_s`` seconds from now, if it has not ended by then."""
        closing = asyncio.ensure_future(self.close())
        done, _ = await asyncio.wait([closing], timeout=after_s)
        if not done:
            await self._close(0)
        await closing

    async def _close(self, drain_s: float) -> None:
        try:
            await self._library.listener_close(self._handle, drain_s)
        except NodeClosedError:
            return  # the node closed it

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Listener(_Part):
    """A port on the tailnet that is bridged to a Unix socket."""


class Forward(_Part):
    """A local socket that leads to one peer over the tailnet.

    Attributes:
        local: where it listens: ``127.0.0.1:8080`` or ``unix:/path``.
    """

    def __init__(self, library: Library, handle: int, local: str) -> None:
        super().__init__(library, handle)
        self.local = local


class Node:
    """A tsnet node in this process.

    ``async with Node(settings) as node: await node.up(60)``. Leaving the context closes the node: first its
    listeners and forwards, then tsnet, each within a bounded time. Closing is idempotent, from any state.
    Nothing blocks the event loop; cancelling ``up`` ends the join.

    Attributes:
        switched_off: what the loopback settings took away from every node of this process.
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
        """The last known state, without a call: tailscale's own word, or ``CLOSED``."""
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
        made = msgspec.json.decode(opened.answer, type=_Made)
        self._peer_prefix, self.switched_off = made.peer_prefix, made.switched_off
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
            JoinTimeoutError: any other reason that took too long.
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
        """Cancel a join until it has ended: a cancel that comes before its thread has begun does nothing."""
        while not joining.done():
            with suppress(NodeClosedError):
                library.node_cancel(self._handle)
            with suppress(asyncio.CancelledError):
                await asyncio.wait([joining], timeout=_CANCEL_AGAIN_S)
        if not joining.cancelled():
            joining.exception()  # looked at, or asyncio reports it: who cancelled wants no answer

    async def status(self) -> NodeStatus:
        """The node's state now."""
        answer = await self._open().node_status(self._handle)
        status = msgspec.json.decode(answer, type=NodeStatus)
        if not self._closing.begun:
            # An event that found no room in the pipe was lost.
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
    ) -> Listener:
        """Bridge a port of this node to a Unix socket on which a server listens.

        Args:
            name: short name of the listener, 1 to 12 of ``a-z0-9-``.
            port: 1 to 65535.
            unix_path: the socket's path.
            addresses: own tailnet addresses to listen on; none means all.
            max_connections: at once, a quarter of them (at least 16) from one address; more are reset.

        Raises:
            TailnetError: an address is not one of the node's, or the node is not up.
            AddressInUseError: the node listens on that port already.
        """
        library = self._open()
        config = {
            "kind": "tcp",
            "name": name,
            "port": port,
            "addresses": list(addresses),
            "unix_path": str(unix_path),
            "max_connections": max_connections,
        }
        opened = await library.listen(self._handle, msgspec.json.encode(config))
        return Listener(library, opened.handle)

    async def forward(self, local: str, remote: str, *, wait_s: float = 10.0) -> Forward:
        """Open a local socket that leads to a peer.

        Args:
            local: loopback ``host:port`` (port 0: a free one), or ``unix:/path``.
            remote: ``peer:port``, the peer by short or full name, or by tailnet address.
            wait_s: how many seconds the peer may take to appear in the netmap.

        Raises:
            PeerNotFoundError: no such peer: a forward never leaves the tailnet.
            AddressInUseError: the local port or path is taken.
        """
        library = self._open()
        config = {"local": local, "remote": remote, "wait_ms": int(wait_s * 1000)}
        opened = await library.forward(self._handle, msgspec.json.encode(config))
        return Forward(
            library, opened.handle, msgspec.json.decode(opened.answer, type=dict[str, str])["local"]
        )

    def whois(self, source: str, destination: str = "") -> Identity:
        """Who is behind a tailnet address: from the node's own state, in microseconds, never cached.

        Args:
            source: ``ip`` or ``ip:port``.
            destination: the address of this node that was called; empty: any.

        Raises:
            UnknownCallerError: no node of this tailnet has that address.
        """
        if self._library is None or self._closing.begun:
            raise NodeClosedError("the node is closed")
        return Identity.decode(self._library.whois(self._handle, source.encode(), destination.encode()))

    def identify(self, peer: object) -> Identity:
        """Who is behind a bridged connection, by its peer name, as of the last piece that arrived on it.

        Args:
            peer: what Sanic (``transport.get_extra_info("peername")``) or gRPC (``context.peer()``) gives.

        Raises:
            UnknownCallerError: nobody that this tailnet knows.
        """
        name = parse(peer, self._peer_prefix)
        if name.slot is not None and self._callers is not None and not self._closing.begun:
            identity = self._callers.identity(name.slot)
            if identity is not None:
                return identity
        return self.whois(name.source)

    async def close(self, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        """Close listeners and forwards, then the node; also during ``up``, and twice.

        Raises:
            TailnetError: tsnet did not close within ``timeout_s`` seconds; its remains are left behind.
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
