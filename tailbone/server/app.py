"""IssuerServer: the issuer's HTTP face on one listening socket, from start to drained close."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sanic import Request, Sanic
from sanic.exceptions import BadURL
from sanic.http import Stage
from sanic.server.protocols.http_protocol import HttpProtocol

from tailbone.server.endpoints import Endpoints, Sources
from tailbone.server.request_head import BODY_LIMIT, HEAD_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from tailbone.process.log import Logger
    from tailbone.token.identity import Identity
    from tailbone.token.issuer import Issuer

BACKLOG: Final = 4096
"""How many connections may wait to be accepted: connect on a full Unix backlog fails at once."""

REQUEST_TIME_S: Final = 10.0
"""How long a request may take to arrive, and a client may be silent before its first one, in seconds."""

ENDED_TIME_S: Final = 0.5
"""How long what a client sent before it ended its side may take to be read, in seconds."""

DRAIN_START_S: Final = 0.1
"""How long new requests are answered after the close has begun, in seconds."""

_POLL_S: Final = 0.01

_numbers = itertools.count(1)


class _Request(Request):
    """Sanic's request, which also exists where the target is no URL, so that it can be refused."""

    def __init__(self, url_bytes: bytes, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(url_bytes, *args, **kwargs)
        except BadURL:
            super().__init__(b"*", *args, **kwargs)


class _Connection(HttpProtocol):
    """Sanic's connection, which limits the time of a whole request and answers after a half-close.

    Sanic's own limits begin again with each byte, which a slow client can go on sending.

    Attributes:
        began: when the request that is arriving began, in the loop's time; None once it has arrived.
        ended: the client has ended its side (``printf … | nc``).
    """

    __slots__ = ("_timer", "began", "ended")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.began: float | None = None
        self.ended = False
        # One for many requests: it is moved on when it fires, not with each request.
        self._timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Take bytes in, and note when a request begins."""
        if self.began is None and (self.http is None or self.http.stage in (Stage.IDLE, Stage.REQUEST)):
            self.began = self.loop.time()
            if self._timer is None:
                self._timer = self.loop.call_at(self.began + REQUEST_TIME_S, self._expire)
        super().data_received(data)

    def eof_received(self) -> bool:
        """Stay open for the answer to a request that has arrived."""
        if self.http is None or (not self.recv_buffer and self.close_if_idle()):
            return False
        self.ended = True
        if not self.recv_buffer:
            self.http.keep_alive = False
        if self.began is not None and self._timer is not None:
            self._timer.cancel()
            self.began = self.loop.time() - REQUEST_TIME_S
            self._timer = self.loop.call_later(ENDED_TIME_S, self._expire)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)  # type: ignore[no-untyped-call]

    def _expire(self) -> None:
        """End a request that has taken too long to arrive."""
        self._timer = None
        if self.began is None:
            return
        late_at = self.began + REQUEST_TIME_S
        if self.loop.time() < late_at:
            self._timer = self.loop.call_at(late_at, self._expire)
            return
        self.request_timeout = self.response_timeout = self.keep_alive_timeout = 0
        self.check_timeouts()  # type: ignore[no-untyped-call]


class IssuerServer:
    """Answers ``POST /issue``, ``GET /_healthz``, ``GET /_readyz`` and ``GET /.well-known/jwks.json``.

    Attributes:
        endpoints: the routes, and what they answer.
    """

    def __init__(
        self,
        *,
        issuer: Issuer,
        identify: Callable[[Any], Identity],
        hosts: Iterable[str],
        readiness: Callable[[], Sequence[str]],
        jwks: Callable[[], bytes | None],
        max_age_s: float,
        version: str,
        commit: str,
        log: Logger,
        audit: Logger | None = None,
        notes: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """Make a server that listens nowhere yet.

        Args:
            issuer: makes the tokens.
            identify: from the transport's ``peername`` to who that is; raises UnknownCallerError.
            hosts: the Host fields that mean this server: addresses, short and full DNS name, allowed hosts.
            readiness: why no token could be issued now; nothing means ready.
            jwks: the last good copy of the published JWKS; None before there is one.
            max_age_s: how long that may be cached, in seconds.
            version: for ``/_healthz``.
            commit: for ``/_healthz``.
            log: gets one line for each refusal.
            audit: gets one line for each token, before it leaves; if it raises, the token does not leave
                (``get_logger(strict=True)`` does when the line cannot be written). ``log`` by default.
            notes: what ``/_readyz`` mentions without being less ready, such as ``jwks: stale``.
        """
        self.endpoints = Endpoints(
            Sources(
                issuer=issuer,
                identify=identify,
                hosts=tuple(hosts),
                readiness=readiness,
                notes=notes,
                jwks=jwks,
                max_age_s=max_age_s,
                version=version,
                commit=commit,
                log=log,
                audit=log if audit is None else audit,
            )
        )
        self._server: Any = None
        self._app: Any = None
        self._closed = asyncio.Event()

    def set_hosts(self, hosts: Iterable[str]) -> None:
        """Replace the Host fields that mean this server: its node has another name."""
        self.endpoints.set_hosts(hosts)

    @property
    def draining(self) -> bool:
        """Whether it has begun to close."""
        return self.endpoints.draining

    @property
    def connections(self) -> set[Any]:
        """The connections of this moment."""
        return set() if self._server is None else self._server.connections

    async def start(self, unix_path: Path) -> None:
        """Listen on a Unix socket; when this returns, connections are accepted.

        Args:
            unix_path: where the socket is made; only this process's user may reach its folder.
        """
        number = next(_numbers)
        # Sanic refuses two apps of one name in a process.
        self._app = app = Sanic(
            f"tailbone-issuer-{number}",
            request_class=_Request,
            configure_logging=False,
            dumps=msgspec.json.encode,
            loads=msgspec.json.decode,
        )
        app.config.update(
            ACCESS_LOG=False,
            AUTO_EXTEND=False,
            MOTD=False,
            REQUEST_TIMEOUT=REQUEST_TIME_S,
            # Until its first request; then Endpoints sets IDLE_TIME_S.
            KEEP_ALIVE_TIMEOUT=REQUEST_TIME_S,
            RESPONSE_TIMEOUT=REQUEST_TIME_S,
            REQUEST_MAX_SIZE=BODY_LIMIT,
            REQUEST_MAX_HEADER_SIZE=HEAD_LIMIT,
            # It rewrites the methods of Sanic's classes from their source, which works once in a process.
            TOUCHUP=number == 1,
        )
        self.endpoints.add_to(app)
        # Sanic's advice about --debug, which no command here has.
        os.environ.setdefault("SANIC_IGNORE_PRODUCTION_WARNING", "1")
        listening = socket.socket(socket.AF_UNIX)
        try:
            listening.bind(str(unix_path))
            server: Any = await app.create_server(sock=listening, protocol=_Connection, backlog=BACKLOG)
        except BaseException:
            listening.close()
            raise
        await server.startup()
        await server.before_start()
        await server.after_start()
        self._server = server

    async def close(self, grace_s: float) -> None:
        """Stop, without losing an answer; idempotent, and a second call waits for the first.

        In this order: end each connection with its next answer; after 0.1 s accept no more and close idle
        connections; after ``grace_s`` seconds, or when cancelled, abort the rest.

        Args:
            grace_s: how long requests under way may take, in seconds.
        """
        server, connections = self._server, self.connections
        if server is None:
            return
        if self.draining:
            await self._closed.wait()
            return
        self.endpoints.draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        try:
            for connection in connections:
                if connection.http is not None:
                    connection.http.keep_alive = False
            # Clients do not know of the close yet: one that has connected but is not accepted, or whose next
            # request is on its way on an idle connection, is still answered.
            try:
                await asyncio.sleep(min(DRAIN_START_S, grace_s))
            finally:
                stopped = server.close()
            for connection in list(connections):
                if not connection.recv_buffer:
                    connection.close_if_idle()
            await self._until_empty(connections, end)
        finally:
            for connection in list(connections):
                # Not connection.abort(), after which Sanic logs an error for half a request.
                connection.transport.abort()
            self.endpoints.close()
            Sanic.unregister_app(self._app)
            self._closed.set()
        # An aborted connection is lost in the loop's next turn.
        await self._until_empty(connections, loop.time() + 1.0)
        await stopped

    async def _until_empty(self, connections: set[Any], end: float) -> None:
        """Wait until all connections have ended; Python 3.11's ``Server.wait_closed`` does not."""
        while connections and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110 -- Sanic has no event
            await asyncio.sleep(_POLL_S)
