"""ASGI middleware: requests reach the app with the claims of their caller, or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

from tailbone.verify.bearer import ANYBODY, authorize_async, refusal_of
from tailbone.verify.errors import VerificationError

if TYPE_CHECKING:
    from tailbone.verify.require import Requirement
    from tailbone.verify.verifier import AsyncVerifier

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_App: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]

CLAIMS = "tailbone.claims"
"""The key of the claims in the connection's scope."""

_POLICY_VIOLATION = 1008


class TailboneMiddleware:
    """Middleware for all requests and WebSockets; ``scope["tailbone.claims"]`` has the claims."""

    def __init__(self, app: _App, verifier: AsyncVerifier, require: Requirement = ANYBODY) -> None:
        """Wrap an app.

        Args:
            app: the ASGI app.
            verifier: verifies the tokens.
            require: who is permitted.
        """
        self._app = app
        self._verifier = verifier
        self._require = require

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Check a connection, then call the app."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        authorization = [
            value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"authorization"
        ]
        try:
            scope[CLAIMS] = await authorize_async(authorization, self._verifier, self._require)
        except VerificationError as error:
            await self._refuse(error, scope, send)
        else:
            await self._app(scope, receive, send)

    async def _refuse(self, error: VerificationError, scope: _Message, send: _Send) -> None:
        if scope["type"] == "websocket":
            # Before the handshake, servers answer this with 403.
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": error.code})
            return
        status, fields, body = refusal_of(error, self._require)
        headers = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
