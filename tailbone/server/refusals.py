"""Refusals: the handler of all errors, with their statuses and log lines."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sanic.exceptions import (
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RequestCancelled,
    RequestTimeout,
    SanicException,
    ServiceUnavailable,
)

from tailbone import errors
from tailbone.counting import FAILED, REFUSED, UNREAD_AUDIENCE
from tailbone.errors import (
    BodyTooLargeError,
    MalformedRequestError,
    MethodNotAllowedError,
    OverloadError,
    RequestTimeoutError,
    TailboneError,
    UnknownPathError,
    status_in,
)
from tailbone.process.refusal_log import RefusalLog
from tailbone.server.request_head import BODY_LIMIT, HEAD_LIMIT
from tailbone.server.responses import Refusal, Request, Response
from tailbone.server.routes import ISSUE_PATH
from tailbone.tsnet.peername import address_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailbone.counting import IssuerCounts
    from tailbone.process.log import Logger
    from tailbone.server.routes import Route

MOST_REFUSALS: Final = 100
"""How many requests of a connection are refused before it is closed."""

# RFC 9110 section 15, and RFC 6585 section 4 for 429. Clients should retry only after 429 and 503.
STATUSES: Final[Mapping[type[TailboneError], int]] = {
    errors.RequestError: 400,
    errors.AccessError: 403,
    errors.UnknownPathError: 404,
    errors.MethodNotAllowedError: 405,
    errors.RequestTimeoutError: 408,
    errors.BodyTooLargeError: 413,
    errors.WrongHostError: 421,
    errors.RateLimitError: 429,
    errors.TailboneError: 500,
    errors.LogUnavailableError: 503,
    errors.NoSigningKeyError: 503,
    errors.OverloadError: 503,
    errors.TailnetError: 503,
}


class Refusals:
    """Answers failed requests, logs why they failed, and counts them."""

    def __init__(
        self, log: Logger, routes: Mapping[str, Route], counts: IssuerCounts, trail: Logger | None = None
    ) -> None:
        """Write to ``log``, and count in ``counts``.

        Args:
            log: receives a line for refused requests.
            routes: the paths that exist.
            counts: counts refusals.
            trail: receives a line for refused tokens; None without an audit file.
        """
        self._log = RefusalLog(log)
        self._routes = routes
        self._counts = counts
        self._trail = None if trail is None else RefusalLog(trail)

    def close(self) -> None:
        """Log the counts that are still pending."""
        for log in filter(None, (self._log, self._trail)):
            log.close()

    def answer(self, request: Request, error: Exception) -> Response:
        """Log why a request failed, and answer it without any inner exception's text.

        Raises:
            CancelledError: there is no client to answer.
        """
        if isinstance(error, RequestCancelled):
            # The client is gone. Sanic would try to answer, and log that it cannot.
            raise asyncio.CancelledError
        if isinstance(error, ServiceUnavailable):  # RESPONSE_TIMEOUT, which also limits the body
            if request.transport.get_write_buffer_size():
                # The client does not read its answers.
                request.transport.abort()
                raise asyncio.CancelledError
            if request.stream.request_body:
                # Otherwise Sanic would wait for the rest of the body without a time limit.
                request.stream.request_body = None
                error = RequestTimeout()
        error = _own_error(request, error, self._routes)
        fields: dict[str, Any] = {"path": request.path} if request.head else {}
        fields |= getattr(request.ctx, "caller", {})
        fields["peer"] = peer = address_of(request.transport.get_extra_info("peername"))
        _end_connection(request, error)
        self._count(request, error, peer)
        if not isinstance(error, TailboneError):
            self._log.add(
                "internal", peer, "error", "request failed", code="internal", exc_info=error, **fields
            )
            return _response(500, "internal", "internal error; the server's log has the cause")
        status = status_in(STATUSES, type(error))
        if error.detail:
            fields["detail"] = error.detail
        # 403, 421 and 429 may be an attack, and 5xx is our own failure; the others are mistakes of clients.
        level = "error" if status == 500 else "warning" if status in (403, 421, 429, 503) else "info"
        self._log.add(error.code, peer, level, "request refused", code=error.code, status=status, **fields)
        response = _response(status, error.code, error.message)
        if isinstance(error, MethodNotAllowedError) and error.allow:
            response.headers["Allow"] = error.allow
        if isinstance(error, OverloadError):
            # RFC 9110 section 10.2.3: whole seconds. A node may make its next request sooner than that.
            response.headers["Retry-After"] = "1"
        return response

    def _count(self, request: Request, error: Exception, peer: str) -> None:
        code = error.code if isinstance(error, TailboneError) else "internal"
        self._counts.refusals[code] += 1
        if request.path == ISSUE_PATH and request.method == "POST":
            refused = isinstance(error, TailboneError) and status_in(STATUSES, type(error)) < 500
            audience = getattr(request.ctx, "audience", UNREAD_AUDIENCE)
            self._counts.requests[REFUSED if refused else FAILED, audience] += 1
            if self._trail is not None:
                caller = getattr(request.ctx, "caller", {})
                self._trail.add(code, peer, "info", "token refused", outcome=code, **caller, address=peer)


def _response(status: int, code: str, message: str) -> Response:
    return Response(msgspec.json.encode(Refusal(code, message)), status)


def _end_connection(request: Request, error: Exception) -> None:
    """Close the connection if the start of the next request is unknown, or after too many refusals."""
    if request.conn_info is None:  # Sanic had no whole head, and closes the connection itself.
        return
    seen = request.conn_info.ctx
    seen.refusals += 1
    if seen.head is None or isinstance(error, MalformedRequestError) or seen.refusals >= MOST_REFUSALS:
        request.stream.keep_alive = False


def _own_error(request: Request, error: Exception, routes: Mapping[str, Route]) -> Exception:
    """Translate Sanic's exceptions."""
    # Sanic also raises MethodNotAllowed for some paths with a final slash.
    unknown = isinstance(error, MethodNotAllowed) and request.path not in routes
    if unknown or isinstance(error, NotFound):
        paths = ", ".join(f"{route.methods[0]} {path}" for path, route in routes.items())
        return UnknownPathError(f"no such path; there are {paths}")
    if isinstance(error, MethodNotAllowed):
        allow = ", ".join(routes[request.path].methods)
        return MethodNotAllowedError(f"{request.path} accepts only {allow}", allow=allow)
    if isinstance(error, PayloadTooLarge) and request.head:
        return BodyTooLargeError(f"at most {BODY_LIMIT} bytes of body are read, and ignored")
    if isinstance(error, PayloadTooLarge):
        return MalformedRequestError(f"request line and headers are longer than {HEAD_LIMIT} bytes")
    if isinstance(error, RequestTimeout):
        return RequestTimeoutError("the request was not complete in time")
    if isinstance(error, SanicException) and error.status_code < 500:
        return MalformedRequestError("the request is not well-formed HTTP/1.1")
    return error
