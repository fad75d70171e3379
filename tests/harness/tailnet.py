"""A real private tailnet for tests that are not coroutines, on an event loop in a thread."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import socket
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from tailbone.tsnet.devnet import Devnet
from tailbone.tsnet.node import Node, NodeSettings

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from pathlib import Path

_T = TypeVar("_T")

EVERYTHING = {"src": ["*"], "dst": ["*"], "ip": ["*"]}
"""A grant that lets all nodes connect to each other."""

_numbers = itertools.count(1)


class Loop:
    """An event loop in its own thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="tailnet-loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _T], timeout_s: float = 30.0) -> _T:
        """Run a coroutine on the loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def close(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class Answer(NamedTuple):
    """A complete HTTP answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.body)


class Route:
    """A loopback port that is forwarded to a port of a peer.

    Attributes:
        address: ``127.0.0.1:port``.
        host: the Host field of requests.
    """

    def __init__(self, address: str, host: str) -> None:
        self.address = address
        self.host = host

    def connect(self, timeout_s: float = 10.0) -> socket.socket:
        """Open a connection, for requests that no HTTP client would send."""
        name, _, port = self.address.rpartition(":")
        return socket.create_connection((name, int(port)), timeout_s)

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 15.0,
    ) -> Answer:
        """Send one request on a new connection."""
        connection = http.client.HTTPConnection(self.address, timeout=timeout_s)
        try:
            connection.request(method, path, body, {"Host": self.host, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> Answer:
        """Send a GET request."""
        return self.request("GET", path, **options)

    def issue(self, query: str = "", **options: Any) -> Answer:
        """Request a token."""
        return self.request("POST", f"/issue{query}", **options)

    def raw(self, request: bytes, timeout_s: float = 15.0) -> bytes:
        """Send bytes, and return everything until the server closes the connection."""
        with self.connect(timeout_s) as connection:
            connection.sendall(request)
            parts = []
            while part := connection.recv(1 << 16):
                parts.append(part)
        return b"".join(parts)


class Caller:
    """A node of the tailnet, in this process, that connects to others.

    Attributes:
        node: the node itself.
        name: its full name.
        addresses: its tailnet addresses.
    """

    def __init__(self, loop: Loop, node: Node, name: str, addresses: tuple[str, ...]) -> None:
        self._loop = loop
        self.node = node
        self.name = name
        self.addresses = addresses

    def to(self, peer: str, port: int = 80, *, local: str = "127.0.0.1:0") -> Route:
        """Forward a loopback port to a port of a peer, until the caller closes."""
        host = f"[{peer}]" if ":" in peer else peer
        forward = self._loop.run(self.node.forward(local, f"{host}:{port}"))
        return Route(forward.local, host)

    def close(self) -> None:
        """Close the node; idempotent."""
        self._loop.run(self.node.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Tailnet:
    """A private tailnet.

    Attributes:
        control_url: its control server.
        domain: the suffix of its nodes' names.
    """

    def __init__(self, folder: Path, *, grants: list[dict[str, Any]] | None = None) -> None:
        self._folder = folder
        self._loop = Loop()
        self._devnet = Devnet()
        try:
            self._loop.run(self._devnet.__aenter__())
            self._loop.run(self._devnet.set_grants(grants or [EVERYTHING]))
        except BaseException:
            self._loop.close()
            raise
        self.control_url = self._devnet.info.control_url
        self.domain = self._devnet.info.tailnet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the tailnet."""
        try:
            self._loop.run(self._devnet.stop())
        finally:
            self._loop.close()

    def do(self, op: str, **arguments: Any) -> Any:
        """Run a command of the private tailnet; see ``Devnet.do``."""
        return self._loop.run(self._devnet.do(op, **arguments))

    def key(self, identity: str, **options: Any) -> str:
        """Create an auth key."""
        return self._loop.run(self._devnet.add_key(identity, **options))

    def grant(self, *grants: dict[str, Any]) -> None:
        """Replace the grants."""
        self._loop.run(self._devnet.set_grants(grants))

    def node(self, name: str) -> dict[str, Any] | None:
        """Return what the control server knows about a node, by its short or full name."""
        for node in self._loop.run(self._devnet.nodes()):
            if name in (node["name"], node["name"].partition(".")[0]):
                return dict(node)
        return None

    def known(self, name: str) -> dict[str, Any]:
        """Return the same as ``node``, for a node that must exist."""
        node = self.node(name)
        assert node is not None, f"the control server knows no node {name}"
        return node

    def caller(self, identity: str = "dev@example.com", *, hostname: str = "", **options: Any) -> Caller:
        """Join a new node.

        Args:
            identity: the identity of the node.
            hostname: by default a new name.
            options: options of its auth key, such as ``shared=True``.
        """
        number = next(_numbers)
        settings = NodeSettings(
            hostname=hostname or f"caller-{number}",
            dir=self._folder / f"caller-{number}",
            authkey=self.key(identity, **options),
            control_url=self.control_url,
            loopback=True,
            ignore_environment=True,
        )
        return self._loop.run(self._join(settings))

    async def _join(self, settings: NodeSettings) -> Caller:
        node = Node(settings)
        await node.__aenter__()
        try:
            status = await node.up(20)
        except BaseException:
            await node.close()
            raise
        return Caller(self._loop, node, status.dns_name, status.addresses)
