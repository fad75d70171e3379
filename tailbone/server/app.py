"""IssuerServer: the issuer's HTTP interface on one listening socket, from start to drained close."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sanic import Request as SanicRequest
from sanic import Sanic
from sanic.exceptions import BadRequest, BadURL
from sanic.http import Stage
from sanic.server.protocols.http_protocol import HttpProtocol

from tailbone import web
from tailbone.errors import UnknownCallerError
from tailbone.process.cancellation import Closing
from tailbone.process.peercred import peer_credentials
from tailbone.server.refusals import Refusals
from tailbone.server.request_head import BODY_LIMIT, HEAD_LIMIT, parse_head
from tailbone.server.routes import add_routes

if TYPE_CHECKING:
    from pathlib import Path

    from tailbone.counting import IssuerCounts
    from tailbone.process.log import Logger
    from tailbone.server.request_head import Head
    from tailbone.server.responses import Request
    from tailbone.server.routes import Handlers

BACKLOG: Final = 4096
"""How many connections may wait to be accepted: connect on a full Unix backlog fails at once."""

REQUEST_TIME_S: Final = 10.0
"""How long a request may make no progress, and how long a new client may be silent, in seconds."""

IDLE_TIME_S: Final = 120.0
"""How long a connection may stay idle after a request, in seconds."""

DRAIN_START_S: Final = 0.1
"""How long new requests are still answered once the close has begun, in seconds."""

_POLL_S: Final = 0.01

_numbers = itertools.count(1)


class _Request(SanicRequest):
    """Sanic's request, which can also be made if the target has no path, so that it can be refused."""

    def __init__(self, url_bytes: bytes, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(url_bytes, *args, **kwargs)
            _ = self.path
        # Not a URL; `http://host`, which Sanic takes for one with a path; a path that is not UTF-8.
        except (BadURL, AttributeError, UnicodeDecodeError):
            super().__init__(b"*", *args, **kwargs)


class _Connection(HttpProtocol):
    """Sanic's connection, which also answers a client that has closed its side (``printf … | nc``)."""

    __slots__ = ("_ended",)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._ended = False

    def connection_made(self, transport: Any) -> None:
        """Begin, with a small buffer for answers that the client does not take."""
        super().connection_made(transport)  # type: ignore[no-untyped-call]
        transport.set_write_buffer_limits(high=HEAD_LIMIT)

    @property
    def is_last(self) -> bool:
        """Whether the client will send no further request."""
        return self._ended and not self.recv_buffer

    def eof_received(self) -> bool:
        """Keep the connection open until what has arrived is answered."""
        self._ended = True
        self._data_received.set()
        return True

    async def receive_more(self) -> None:
        """Wait until more has arrived.

        Raises:
            CancelledError: the client has closed its side between two requests.
            BadRequest: the client has closed its side within a request.
        """
        before = len(self.recv_buffer)
        if not self._ended:
            await super().receive_more()  # type: ignore[no-untyped-call]
        if self._ended and len(self.recv_buffer) == before:
            if self.http is None or self.http.stage is Stage.IDLE:
                raise asyncio.CancelledError
            raise BadRequest


class _LimitedConnection(_Connection):
    """One of at most so many connections: a further one ends the oldest."""

    __slots__ = ("_most", "since")

    def __init__(self, *, most: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._most = most
        self.since = 0.0

    def connection_made(self, transport: Any) -> None:
        """Begin, and end the oldest connection if there are too many."""
        super().connection_made(transport)
        self.since = self.loop.time()
        if len(self.connections) > self._most:
            oldest = min(self.connections, key=lambda connection: connection.since)
            # Otherwise it would be found again before it is lost, in the loop's next turn.
            self.connections.discard(oldest)
            if oldest.transport is not None:  # as of one that Sanic has just aborted
                oldest.transport.abort()


class _Seen:
    """What is remembered of a connection between its requests (``request.conn_info.ctx``).

    Attributes:
        raw_head: the bytes of the last head that passed the check.
        head: the same, parsed; None before one has passed.
        refusals: how many requests were refused.
    """

    __slots__ = ("head", "raw_head", "refusals")

    def __init__(self) -> None:
        self.raw_head = b""
        self.head: Head | None = None
        self.refusals = 0


class IssuerServer:
    """The issuer's HTTP server on one socket, with the routes of ``Endpoints`` or ``OutsideProbes``."""

    def __init__(
        self,
        handlers: Handlers,
        log: Logger,
        counts: IssuerCounts,
        trail: Logger | None = None,
        *,
        most_connections: int | None = None,
    ) -> None:
        """Make a server that does not listen yet.

        Args:
            handlers: answer the requests.
            log: receives a line for refused requests.
            counts: counts them.
            trail: receives a line for refused tokens, if there is an audit file.
            most_connections: how many are open at a time: a further one ends the oldest, so that no client
                keeps others out; None where the bridge limits them.
        """
        self._handlers = handlers
        self._most_connections = most_connections
        self._refusals = Refusals(log, handlers.routes, counts, trail)
        self._closing = Closing()
        self._server: Any = None
        self._app: Any = None

    @property
    def draining(self) -> bool:
        """Whether the close has begun: every answer ends its connection."""
        return self._closing.begun

    @property
    def connections(self) -> set[Any]:
        """The open connections."""
        return set() if self._server is None else self._server.connections

    async def start(self, unix_path: Path) -> None:
        """Listen on a Unix socket; when this returns, connections are accepted.

        Args:
            unix_path: where the socket is made; only this process's user may reach its folder.
        """
        await self.start_on(_bound(unix_path))

    async def start_on(self, listening: socket.socket) -> None:
        """Listen on a bound socket, which the server closes; when this returns, connections are accepted."""
        number = next(_numbers)
        self._app = app = web.make_app(
            f"tailbone-issuer-{number}",
            request_class=_Request,
            dumps=msgspec.json.encode,
            loads=msgspec.json.decode,
        )
        app.config.update(
            REQUEST_TIMEOUT=REQUEST_TIME_S,
            # Until its first request; then the check sets IDLE_TIME_S.
            KEEP_ALIVE_TIMEOUT=REQUEST_TIME_S,
            RESPONSE_TIMEOUT=REQUEST_TIME_S,
            REQUEST_MAX_SIZE=BODY_LIMIT,
            REQUEST_MAX_HEADER_SIZE=HEAD_LIMIT,
            # Of what a client sends ahead, and of answers that it does not take, no more is held than this.
            REQUEST_BUFFER_SIZE=HEAD_LIMIT,
            # Sanic then calls nothing for the signals without a handler, which halves its function calls.
            TOUCHUP=number == 1,
        )
        app.add_signal(_remember, "http.lifecycle.begin")
        app.add_signal(_let_others_run, "http.lifecycle.read_body")
        # Sanic also runs it before it handles an error of its own router, such as 404.
        app.register_middleware(self._check, "request")
        add_routes(app, self._handlers)
        app.exception(Exception)(self._refusals.answer)
        most = self._most_connections
        self._server = await web.start(
            app,
            listening,
            protocol=_Connection if most is None else partial(_LimitedConnection, most=most),
            # asyncio accepts that many in one turn of the loop: a flood leaves time for other work, and a
            # connection lasts until it is answered.
            backlog=BACKLOG if most is None else most // 4,
        )

    async def _check(self, request: Request) -> None:
        """Parse the head strictly, unless the client repeats its last one byte for byte, as most do.

        Raises:
            MalformedRequestError: the head is ambiguous.
            UnknownCallerError: another process has connected.
        """
        if not request.head:  # Sanic could not even parse it, or it did not arrive whole.
            return
        seen: _Seen = request.conn_info.ctx
        if request.head != seen.raw_head:
            if seen.head is None:
                _check_process(request.transport)
                request.protocol.keep_alive_timeout = IDLE_TIME_S
            seen.head = parse_head(request.head)
            seen.raw_head = request.head
        head = seen.head
        assert head is not None  # noqa: S101 -- for the type checker: no head equals the empty one
        # Sanic parses chunks leniently: what follows them must not be taken for a request.
        last = self.draining or request.protocol.is_last
        request.stream.keep_alive = head.keep_alive and head.length is not None and not last
        if request.protocol.recv_buffer:
            # A client that pipelines requests waits its turn like all others.
            await asyncio.sleep(0)

    async def close(self, grace_s: float) -> None:
        """Stop without losing an answer; idempotent, and all callers wait for one close.

        In this order: end each connection with its next answer; after 0.1 s accept no more and close idle
        connections; after ``grace_s`` seconds abort the rest.

        Args:
            grace_s: how long requests under way may take, in seconds.
        """
        if self._server is not None:
            await self._closing.once(lambda: self._close(grace_s))

    async def _close(self, grace_s: float) -> None:
        server, connections = self._server, self.connections
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        for connection in connections:
            if connection.http is not None:
                connection.http.keep_alive = False
        # Clients do not know about the close yet: a connection that is not accepted yet, and a request on its
        # way on an idle connection, are still answered.
        await asyncio.sleep(min(DRAIN_START_S, grace_s))
        stopped = server.close()
        for connection in list(connections):
            if not connection.recv_buffer:
                connection.close_if_idle()
        await self._until_empty(connections, end)
        for connection in list(connections):
            # Not connection.abort(), after which Sanic logs an error for half a request.
            connection.transport.abort()
        self._refusals.close()
        Sanic.unregister_app(self._app)
        # An aborted connection is lost in the loop's next turn.
        await self._until_empty(connections, loop.time() + 1.0)
        await stopped

    async def _until_empty(self, connections: set[Any], end: float) -> None:
        """Wait until all connections have ended; Python 3.11's ``Server.wait_closed`` does not."""
        while connections and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110 -- Sanic has no event
            await asyncio.sleep(_POLL_S)


def _bound(unix_path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(str(unix_path))
    except OSError:
        listening.close()
        raise
    return listening


async def _remember(conn_info: Any) -> None:
    """Prepare what is remembered of a new connection."""
    conn_info.ctx = _Seen()


async def _let_others_run(body: bytes) -> None:  # noqa: ARG001 -- Sanic passes it by name
    """Yield between two pieces of a body, which can be thousands of chunks that have arrived at once."""
    await asyncio.sleep(0)


def _check_process(transport: Any) -> None:
    """Refuse other processes: a peer's name is visible to them (``/proc/net/unix``) and can be copied.

    Raises:
        UnknownCallerError: the other end of a Unix socket is not the bridge in this process.
    """
    connection = transport.get_extra_info("socket")
    if connection.family != socket.AF_UNIX:
        return
    pid = peer_credentials(connection).pid
    if pid != os.getpid():
        raise UnknownCallerError("the caller did not come over the tailnet", detail=f"from process {pid}")
