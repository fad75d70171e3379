"""The forward-auth endpoint: a proxy asks it for every request, before it passes the request on.

It answers 200 with who the caller is in ``X-Tailbone-*`` fields, or 401, 403 or 503. Every answer of 200 has
all of these fields, empty ones too, so that a proxy replaces those that the client has sent.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sanic.response import text

from tailbone import web
from tailbone.process.log import get_logger
from tailbone.process.signals import stop_on_signals
from tailbone.text import host_port
from tailbone.verify.sanic import protect

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from sanic import Request
    from sanic.response import HTTPResponse

    from tailbone.verify import AsyncVerifier, Claims, Requirement

FIELDS: Final = ("Sub", "User", "Tags", "Node", "Node-Id", "Groups", "Scope")
"""What follows ``X-Tailbone-`` in the names of the fields."""

_BACKLOG: Final = 1024
_LARGEST_HEAD: Final = 64 * 1024
# Printable ASCII but the percent sign, which escapes, and the comma, which separates.
_SAFE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in "%,")


def identity_fields(claims: Claims) -> dict[str, str]:
    """Return the fields that name a caller; other characters than ASCII, and commas, are percent-encoded."""
    values = (
        _field([claims.sub]),
        _field([claims.user]),
        _field(claims.tags),
        _field([claims.node]),
        _field([claims.node_id]),
        _field(claims.groups),
        _field([claims.scope]),
    )
    return {f"X-Tailbone-{name}": value for name, value in zip(FIELDS, values, strict=True)}


class ForwardAuth:
    """An endpoint for any method and path: ``async with ForwardAuth(verifier, require, listening)``."""

    def __init__(self, verifier: AsyncVerifier, require: Requirement, listening: socket.socket) -> None:
        """Create an endpoint.

        Args:
            verifier: verifies the tokens.
            require: who is permitted.
            listening: a bound socket; it is closed at the end.
        """
        self._app = web.make_app(f"tailbone-forward-auth-{id(self)}")
        self._app.config.REQUEST_MAX_HEADER_SIZE = _LARGEST_HEAD
        protect(self._app, verifier, require)
        # Sanic runs these for every request, also for one that its router refuses, such as an unknown method.
        self._app.on_request(_permit)
        self._app.add_route(_permit, "/")  # it does not start without a route
        self._listening = listening
        self._server: Any = None

    async def __aenter__(self) -> None:
        self._server = await web.start(self._app, self._listening, backlog=_BACKLOG)

    async def __aexit__(self, *_: object) -> None:
        await web.close(self._app, self._server)


def run(verifier: AsyncVerifier, require: Requirement, listening: socket.socket) -> None:
    """Serve until a signal."""
    asyncio.run(_run(verifier, require, listening))


async def _run(verifier: AsyncVerifier, require: Requirement, listening: socket.socket) -> None:
    with stop_on_signals() as stop:
        async with ForwardAuth(verifier, require, listening):
            host, port = listening.getsockname()[:2]
            get_logger().info("forward auth started", address=host_port(host, port))
            await stop.asked.wait()


async def _permit(request: Request) -> HTTPResponse:
    return text("", 200, {**identity_fields(request.ctx.claims), "Cache-Control": "no-store"})


def _field(values: Iterable[str]) -> str:
    return ",".join(quote(value, safe=_SAFE) for value in values)
