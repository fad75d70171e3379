"""IssuerServer: the issuer's HTTP face on one listening socket, from start to drained close."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sanic import Sanic

from tailbone.server.connection import Connection
from tailbone.server.endpoints import Endpoints, Sources

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Sequence

    from sanic.server import AsyncioServer

    from tailbone.process.log import Logger
    from tailbone.token.identity import Identity
    from tailbone.token.issuer import Issuer

BACKLOG: Final = 4096
"""How many connections may wait to be accepted: connect on a full Unix backlog fails at once."""

DRAIN_START_S: Final = 0.1
"""How long new requests are answered after the close has begun, in seconds."""

_SWEEP_S: Final = 1.0

_numbers = itertools.count(1)


class IssuerServer:
    """Answers ``POST /issue``, ``GET /_healthz``, ``GET /_readyz`` and ``GET /.well-known/jwks.json``.

    Attributes:
        endpoints: what each path answers.
        draining: whether it takes no further requests.
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
        self.draining = False
        self._server: AsyncioServer | None = None
        self._app: Any = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._left = asyncio.Event()
        self._closed = asyncio.Event()

    def set_hosts(self, hosts: Iterable[str]) -> None:
        """Let other Host fields mean this server than before: its node was given another name."""
        self.endpoints.set_hosts(hosts)

    @property
    def connections(self) -> set[Connection]:
        """The connections of this moment."""
        return set() if self._server is None else self._server.connections

    async def start(self, listening: socket.socket) -> None:
        """Serve ``listening``, a bound stream socket; it accepts when this returns."""
        # Sanic refuses two apps of one name in a process.
        app: Any = Sanic(
            f"tailbone-issuer-{next(_numbers)}",
            configure_logging=False,
            dumps=msgspec.json.encode,
            loads=msgspec.json.decode,
        )
        app.config.update(ACCESS_LOG=False, AUTO_EXTEND=False, MOTD=False)
        app.ctx.owner = self
        self._app = app
        # No app.startup(): it rewrites Sanic's methods from their source, which works once per process, and
        # it wants routes. A Connection needs neither.
        # Sanic's advice about --debug, which no command here has.
        os.environ.setdefault("SANIC_IGNORE_PRODUCTION_WARNING", "1")
        self._server = await app.create_server(sock=listening, protocol=Connection, backlog=BACKLOG)
        self._sweep()

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
        self.draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        try:
            # Clients have not heard of it yet: who has connected but is not accepted, and whose next request
            # is on its way on an idle connection, is still answered, and told that the connection ends.
            try:
                await asyncio.sleep(min(DRAIN_START_S, grace_s))
            finally:
                server.close()  # type: ignore[no-untyped-call]
            for connection in list(connections):
                connection.finish()
            await self._until_empty(connections, end - loop.time())
        finally:
            for connection in list(connections):
                connection.abort()  # type: ignore[no-untyped-call]
            if self._sweeper is not None:
                self._sweeper.cancel()
            Sanic.unregister_app(self._app)
            self._closed.set()
        # What was aborted hears of it in the loop's next turn.
        await self._until_empty(connections, 1.0)

    def left(self) -> None:
        """Hear that a connection has ended (called by it)."""
        self._left.set()

    def expire(self, now: float) -> None:
        """End every connection whose time is over at ``now``, in the loop's time (called once a second)."""
        for connection in list(self.connections):
            if now >= connection.deadline:
                connection.expire()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self.expire(loop.time())
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)

    async def _until_empty(self, connections: set[Connection], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                while connections:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            return
