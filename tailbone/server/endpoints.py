"""The routes of the issuer, the strict check before them, and the one handler of every error."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import struct
import time
from email.utils import formatdate
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, Final, TypeAlias

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
from sanic.response import HTTPResponse

from tailbone.errors import (
    BodyTooLargeError,
    BrowserRequestError,
    LogUnavailableError,
    MalformedRequestError,
    MethodNotAllowedError,
    RequestTimeoutError,
    TailboneError,
    UnknownCallerError,
    UnknownPathError,
    WrongHostError,
)
from tailbone.server.hosts import AllowedHosts
from tailbone.server.query import parse_query
from tailbone.server.refusals import RefusalLog
from tailbone.server.request_head import BODY_LIMIT, HEAD_LIMIT, Head, parse_head
from tailbone.server.statuses import status_of
from tailbone.tsnet.peername import address_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from tailbone.process.log import Logger
    from tailbone.token.identity import Identity
    from tailbone.token.issuer import Issuer

Request: TypeAlias = Any
"""``sanic.Request``, whose types leave out what only HTTP/1 has: protocol, stream and connection."""

ISSUE_PATH: Final = "/issue"
HEALTH_PATH: Final = "/_healthz"
READY_PATH: Final = "/_readyz"
JWKS_PATH: Final = "/.well-known/jwks.json"

IDLE_TIME_S: Final = 120.0
"""How long a connection that has sent a request may stay open without another, in seconds."""

REFUSALS_IN_A_ROW: Final = 100
"""How many requests in a row may be refused before the connection ends."""

_ALLOW: Final = {
    ISSUE_PATH: "POST",
    HEALTH_PATH: "GET, HEAD",
    READY_PATH: "GET, HEAD",
    JWKS_PATH: "GET, HEAD",
}
_PATHS: Final = ", ".join(f"{allow.partition(',')[0]} {path}" for path, allow in _ALLOW.items())
_UCRED: Final = struct.Struct("3i")

_encode = msgspec.json.Encoder().encode


class _Answer(msgspec.Struct, frozen=True):
    token: str
    expires_at: int


class _Refusal(msgspec.Struct, frozen=True):
    error: str
    message: str


class _NotReady(msgspec.Struct, frozen=True):
    error: str
    message: str
    reasons: Sequence[str]
    notes: Sequence[str]


class _Ready(msgspec.Struct, frozen=True):
    ready: bool
    reasons: Sequence[str]
    notes: Sequence[str]


class _Health(msgspec.Struct, frozen=True):
    ok: bool
    version: str
    commit: str


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Where answers come from; see ``IssuerServer`` for each."""

    issuer: Issuer
    identify: Callable[[Any], Identity]
    hosts: Iterable[str]
    readiness: Callable[[], Sequence[str]]
    notes: Callable[[], Sequence[str]]
    jwks: Callable[[], bytes | None]
    max_age_s: float
    version: str
    commit: str
    log: Logger
    audit: Logger


class _Connection:
    """What is remembered of a connection between its requests (``request.conn_info.ctx.connection``).

    Attributes:
        raw_head: the bytes of the last head that passed the check.
        head: what they say.
        refused: how many requests in a row were refused.
    """

    __slots__ = ("head", "raw_head", "refused")

    def __init__(self) -> None:
        self.raw_head = b""
        self.head: Head | None = None
        self.refused = 0


class Endpoints:
    """Answers requests.

    Attributes:
        draining: every answer ends its connection.
    """

    def __init__(self, sources: Sources) -> None:
        """Answer from ``sources``."""
        self.draining = False
        self._sources = sources
        self._hosts = AllowedHosts(sources.hosts)
        self._refusals = RefusalLog(sources.log)
        self._audit_fails = False
        self._health = _encode(_Health(ok=True, version=sources.version, commit=sources.commit))

    def add_to(self, app: Any) -> None:
        """Register the routes, the check and the handler of errors.

        The order of the checks is part of the interface: form of the head, path, method, length of the body,
        and what ``_issue`` checks.
        """
        for path, answer in (
            (ISSUE_PATH, self._issue),
            (HEALTH_PATH, self._healthz),
            (READY_PATH, self._readyz),
            (JWKS_PATH, self._jwks),
        ):
            app.add_route(
                _route(answer),
                path,
                methods=_ALLOW[path].split(", "),
                name=answer.__name__.lstrip("_"),
                strict_slashes=True,
            )
        # Sanic runs it before the handler, and before the handler of an error that comes earlier, as of 404.
        app.register_middleware(self._check, "request")
        app.exception(Exception)(self._refuse)

    def set_hosts(self, hosts: Iterable[str]) -> None:
        """Replace the Host fields that mean this server."""
        self._hosts = AllowedHosts(hosts)

    def close(self) -> None:
        """Log what has been counted of refusals."""
        self._refusals.close()

    async def _check(self, request: Request) -> None:
        """Read the head strictly; a client that repeats its head byte for byte, as most do, pays once.

        Raises:
            MalformedRequestError: readers could understand the head in different ways.
            UnknownCallerError: another process has connected.
        """
        if not request.head:  # Sanic could not even parse it, or it did not arrive whole.
            return
        if not request.stream.request_body:
            request.protocol.began = None  # the whole request has arrived
        connection = _connection(request)
        if request.head != connection.raw_head:
            if connection.head is None:
                _check_process(request.transport)
                request.protocol.keep_alive_timeout = IDLE_TIME_S
            connection.head = parse_head(request.head)
            connection.raw_head = request.head
        head = connection.head
        assert head is not None  # noqa: S101 -- for the type checker: no head equals the empty one
        ahead = bool(request.protocol.recv_buffer)
        last = self.draining or (request.protocol.ended and not ahead)
        # Sanic reads the framing of chunks leniently: what follows them must not be taken for a request.
        request.stream.keep_alive = head.keep_alive and head.length is not None and not last
        if ahead:
            # A client that sends requests ahead waits its turn like all others.
            await asyncio.sleep(0)

    def _refuse(self, request: Request, error: Exception) -> HTTPResponse:
        """Log why a request fails, and answer what its sender may know: never an inner exception's text."""
        if isinstance(error, RequestCancelled):
            # The client is gone. Sanic would try to answer, and log that it cannot.
            raise asyncio.CancelledError
        if isinstance(error, ServiceUnavailable):  # RESPONSE_TIMEOUT, which also limits the body
            if request.transport.get_write_buffer_size():
                # The client does not read its answers, and would not read this one.
                request.transport.abort()
                raise asyncio.CancelledError
            if request.stream.request_body:
                # Sanic would wait for the rest of the body without a time limit.
                request.stream.request_body = None
                error = RequestTimeout()
        error = _own_error(request, error)
        facts: dict[str, Any] = {"path": request.path} if request.head else {}
        facts |= getattr(request.ctx, "caller", {})
        peer = address_of(request.transport.get_extra_info("peername"))
        self._end_after_refusals(request, error)
        if not isinstance(error, TailboneError):
            self._refusals.add("error", "request failed", code="internal", peer=peer, exc_info=error, **facts)
            return _json(
                _encode(_Refusal("internal", "internal error; the server's log has the cause")), status=500
            )
        status = status_of(error)
        if error.detail:
            facts["detail"] = error.detail
        # 403 and 421 may be an attack, and 5xx is our side; a client's mistake is neither.
        level = "error" if status == 500 else "warning" if status in (403, 421, 503) else "info"
        self._refusals.add(level, "request refused", code=error.code, peer=peer, status=status, **facts)
        response = _json(_encode(_Refusal(error.code, error.message)), status=status)
        if isinstance(error, MethodNotAllowedError) and error.allow:
            response.headers["Allow"] = error.allow
        return response

    def _end_after_refusals(self, request: Request, error: Exception) -> None:
        """End the connection where the next request's beginning is unknown, or after too many refusals."""
        if request.conn_info is None:  # Sanic had no whole head, and ends the connection by itself.
            return
        connection = _connection(request)
        connection.refused += 1
        foreign = connection.head is None
        if foreign or isinstance(error, MalformedRequestError) or connection.refused >= REFUSALS_IN_A_ROW:
            request.stream.keep_alive = False

    async def _issue(self, request: Request, head: Head) -> HTTPResponse:
        sources = self._sources
        if head.host not in self._hosts:
            raise WrongHostError("Host is neither an address nor a name of this server, nor an allowed host")
        if head.origin or head.fetch_site != "none":
            raise BrowserRequestError(
                "a web page may not ask for its visitor's token (Origin, Sec-Fetch-Site)"
            )
        identity = sources.identify(request.transport.get_extra_info("peername"))
        try:
            caller = sources.issuer.admit(identity)
            issued = await sources.issuer.issue(caller, parse_query(head.query))
        except TailboneError:
            request.ctx.caller = {"sub": identity.subject, "node": identity.node}
            raise
        # The line is written before the token leaves: no token without its line.
        self._audit(
            "token issued", sub=issued.sub, kid=issued.kid, jti=issued.jti, aud=issued.aud, node=issued.node
        )
        return _json(_encode(_Answer(issued.token, issued.expires_at)))

    def _audit(self, event: str, **facts: Any) -> None:
        """Write a line that must not be lost.

        Raises:
            LogUnavailableError: it cannot be written.
        """
        self._audit_fails = True
        try:
            self._sources.audit.info(event, **facts)
        except OSError as error:
            raise LogUnavailableError(
                "the server cannot log the token; /_readyz says when it can", detail=str(error)
            ) from error
        self._audit_fails = False

    def _audit_reasons(self) -> Sequence[str]:
        """Report whether tokens are refused because their line cannot be written; try to write one."""
        if self._audit_fails:
            try:
                self._audit("the lines of tokens can be written again")
            except LogUnavailableError:
                return ("log: the line of a token cannot be written",)
        return ()

    async def _healthz(self, _request: Request, _head: Head) -> HTTPResponse:
        return _json(self._health)

    async def _readyz(self, _request: Request, _head: Head) -> HTTPResponse:
        reasons = [*self._sources.readiness(), *self._audit_reasons()]
        if reasons:
            return self._not_ready(reasons)
        return _json(_encode(_Ready(ready=True, reasons=(), notes=self._sources.notes())))

    def _not_ready(self, reasons: Sequence[str]) -> HTTPResponse:
        message = "not ready: " + "; ".join(reasons)
        return _json(_encode(_NotReady("not_ready", message, reasons, self._sources.notes())), status=503)

    async def _jwks(self, _request: Request, head: Head) -> HTTPResponse:
        document = self._sources.jwks()
        if document is None:
            # Not an empty one, which a verifier would keep for minutes.
            return self._not_ready(["jwks: no key is published yet"])
        etag = _etag(document)
        cache_control = f"public, max-age={int(self._sources.max_age_s)}"
        # RFC 9110 section 13.1.2: a weak comparison.
        known = [tag.strip().removeprefix("W/") for tag in head.if_none_match.split(",")]
        unchanged = etag in known or "*" in known
        response = _json(b"" if unchanged else document, 304 if unchanged else 200, cache_control)
        response.headers["ETag"] = etag
        return response


def _route(
    answer: Callable[[Request, Head], Coroutine[Any, Any, HTTPResponse]],
) -> Callable[[Request], Coroutine[Any, Any, HTTPResponse]]:
    """Give an endpoint the head that the check has read, and note its success."""

    @wraps(answer)
    async def handle(request: Request) -> HTTPResponse:
        connection = _connection(request)
        assert connection.head is not None  # noqa: S101 -- for the type checker: the check has run
        response = await answer(request, connection.head)
        connection.refused = 0
        return response

    return handle


def _connection(request: Request) -> _Connection:
    kept: dict[str, _Connection] = vars(request.conn_info.ctx)
    return kept.get("connection") or kept.setdefault("connection", _Connection())


def _check_process(transport: Any) -> None:
    """Refuse other processes: a peer's name is visible to them (``/proc/net/unix``) and can be copied.

    Raises:
        UnknownCallerError: the other end is not the bridge in this process (SO_PEERCRED, unix(7)).
    """
    peer = transport.get_extra_info("socket")
    pid, _uid, _gid = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if pid != os.getpid():
        raise UnknownCallerError("the caller did not come over the tailnet", detail=f"from process {pid}")


def _own_error(request: Request, error: Exception) -> Exception:
    """Translate what Sanic raises."""
    # Sanic answers 405 for some paths with a final slash.
    unknown = isinstance(error, MethodNotAllowed) and request.path not in _ALLOW
    if unknown or isinstance(error, NotFound):
        return UnknownPathError(f"no such path; there are {_PATHS}")
    if isinstance(error, MethodNotAllowed):
        allow = _ALLOW[request.path]
        return MethodNotAllowedError(f"{request.path} takes {allow}", allow=allow)
    if isinstance(error, PayloadTooLarge) and request.head:
        return BodyTooLargeError(f"at most {BODY_LIMIT} bytes of body are read, and ignored")
    if isinstance(error, PayloadTooLarge):
        return MalformedRequestError(f"request line and headers are longer than {HEAD_LIMIT} bytes")
    if isinstance(error, RequestTimeout) and request.protocol.ended:
        return MalformedRequestError("the request ends before it is complete")
    if isinstance(error, RequestTimeout):
        return RequestTimeoutError("the request was not complete in time")
    if isinstance(error, SanicException) and error.status_code < 500:
        return MalformedRequestError("the request is not well-formed HTTP/1.1")
    return error


def _json(body: bytes, status: int = 200, cache_control: str = "no-store") -> HTTPResponse:
    return HTTPResponse(
        body,
        status,
        {"Date": _date(int(time.time())), "Cache-Control": cache_control},
        "application/json",
    )


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """Return the Date field (RFC 9110 section 6.6.1)."""
    return formatdate(second, usegmt=True)


@lru_cache(maxsize=1)
def _etag(document: bytes) -> str:
    return f'"{hashlib.sha256(document).hexdigest()[:32]}"'
