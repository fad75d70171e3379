"""What each path answers. No I/O but the calls that were handed in."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tailbone.errors import (
    BodyTooLargeError,
    BrowserRequestError,
    MethodNotAllowedError,
    RequestError,
    TailboneError,
    UnknownPathError,
    WrongHostError,
)
from tailbone.server.hosts import AllowedHosts
from tailbone.server.query import parse_query
from tailbone.server.statuses import status_of
from tailbone.tsnet.peername import address_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from tailbone.process.log import Logger
    from tailbone.server.request_head import Head
    from tailbone.token.identity import Identity
    from tailbone.token.issuer import Issuer

ISSUE_PATH: Final = "/issue"
HEALTH_PATH: Final = "/_healthz"
READY_PATH: Final = "/_readyz"
JWKS_PATH: Final = "/.well-known/jwks.json"

_JSON: Final = b"Content-Type: application/json\r\n"
_JSON_NO_STORE: Final = _JSON + b"Cache-Control: no-store\r\n"

_encode = msgspec.json.Encoder().encode


class Response(msgspec.Struct, frozen=True):
    """An answer, all but the fields that belong to the connection.

    Attributes:
        status: the HTTP status.
        body: JSON, or nothing.
        fields: header lines, each with its CR LF.
    """

    status: int
    body: bytes
    fields: bytes = _JSON_NO_STORE


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


class _Route(msgspec.Struct, frozen=True):
    methods: frozenset[str]
    allow: str
    answer: Callable[[Head, Any], Awaitable[Response]]


class Endpoints:
    """Answers requests that have arrived whole."""

    def __init__(self, sources: Sources) -> None:
        """Answer from ``sources``."""
        self._sources = sources
        self._hosts = AllowedHosts(sources.hosts)
        self._audit_fails = False
        self._health = Response(
            200, _encode(_Health(ok=True, version=sources.version, commit=sources.commit))
        )
        readable = frozenset({"GET", "HEAD"})
        self._routes = {
            ISSUE_PATH: _Route(frozenset({"POST"}), "POST", self._issue),
            HEALTH_PATH: _Route(readable, "GET, HEAD", self._healthz),
            READY_PATH: _Route(readable, "GET, HEAD", self._readyz),
            JWKS_PATH: _Route(readable, "GET, HEAD", self._jwks),
        }
        self._known_paths = ", ".join(f"{r.allow.split(',')[0]} {path}" for path, r in self._routes.items())

    def set_hosts(self, hosts: Iterable[str]) -> None:
        """Let other Host fields mean this server than before."""
        self._hosts = AllowedHosts(hosts)

    async def answer(self, head: Head, peername: Any) -> Response:
        """Answer one request; every failure becomes an answer too.

        The order of the checks is part of the interface: path, method, the body's length (which is known
        before this is called: see ``refuse_incomplete``), and what ``_issue`` checks.

        Args:
            head: the request.
            peername: the transport's name of the other end, which says who the caller is.
        """
        try:
            return await self._route(head)(head, peername)
        except Exception as error:  # noqa: BLE001  logged with its traceback, and answered as 500
            return self.refuse(error, peername, path=head.path)

    def refuse_incomplete(self, head: Head | None, error: RequestError, peername: Any) -> Response:
        """Refuse a request of which not all was read; ``head`` is None when not even that could be.

        A path or method that does not exist is told before a body that is too long.
        """
        if head is None:
            return self.refuse(error, peername)
        if isinstance(error, BodyTooLargeError):
            try:
                self._route(head)
            except RequestError as earlier:
                error = earlier
        return self.refuse(error, peername, path=head.path)

    def refuse(self, error: Exception, peername: Any, **facts: Any) -> Response:
        """Log why a request fails, and give what its sender is told: never an inner exception's text.

        Args:
            error: why.
            peername: who sent it, as far as the transport knows.
            facts: more for the log line.
        """
        log = self._sources.log
        facts["peer"] = address_of(peername)
        if not isinstance(error, TailboneError):
            log.error("request failed", code="internal", exc_info=error, **facts)
            return Response(500, _encode(_Refusal("internal", "internal error; the server's log has it")))
        status = status_of(error)
        if error.detail:
            facts["detail"] = error.detail
        # 403 and 421 may be an attack, and 5xx is our side; a slip of a client's is neither.
        write = log.error if status == 500 else log.warning if status in (403, 421, 503) else log.info
        write("request refused", code=error.code, status=status, **facts)
        fields = _JSON_NO_STORE
        if isinstance(error, MethodNotAllowedError) and error.allow:
            fields += f"Allow: {error.allow}\r\n".encode("ascii")
        return Response(status, _encode(_Refusal(error.code, error.message)), fields)

    def _route(self, head: Head) -> Callable[[Head, Any], Awaitable[Response]]:
        route = self._routes.get(head.path)
        if route is None:
            raise UnknownPathError(f"no such path; there are {self._known_paths}")
        if head.method not in route.methods:
            raise MethodNotAllowedError(f"{head.path} takes {route.allow}", allow=route.allow)
        return route.answer

    async def _issue(self, head: Head, peername: Any) -> Response:
        sources = self._sources
        if head.host not in self._hosts:
            raise WrongHostError("Host is neither an address nor a name of this server, nor an allowed host")
        if head.origin or head.fetch_site != "none":
            raise BrowserRequestError(
                "a web page may not ask for its visitor's token (Origin, Sec-Fetch-Site)"
            )
        identity = sources.identify(peername)
        try:
            caller = sources.issuer.admit(identity)
            issued = await sources.issuer.issue(caller, parse_query(head.query))
        except TailboneError as error:
            return self.refuse(error, peername, path=head.path, sub=identity.subject, node=identity.node)
        # The line is written before the token leaves: no token without its line.
        self._audit(
            "token issued", sub=issued.sub, kid=issued.kid, jti=issued.jti, aud=issued.aud, node=issued.node
        )
        return Response(200, _encode(_Answer(issued.token, issued.expires_at)))

    def _audit(self, event: str, **facts: Any) -> None:
        """Write a line that must not be lost.

        Raises:
            OSError: it cannot be written.
        """
        self._audit_fails = True
        self._sources.audit.info(event, **facts)
        self._audit_fails = False

    def _audit_reasons(self) -> Sequence[str]:
        """Why no token can leave for want of its line; after a failure, each call tries to write one."""
        if self._audit_fails:
            try:
                self._audit("the lines of tokens can be written again")
            except OSError:
                return ("log: the line of a token cannot be written",)
        return ()

    async def _healthz(self, _head: Head, _peername: Any) -> Response:
        return self._health

    async def _readyz(self, _head: Head, _peername: Any) -> Response:
        reasons = [*self._sources.readiness(), *self._audit_reasons()]
        if not reasons:
            return Response(200, _encode(_Ready(ready=True, reasons=(), notes=self._sources.notes())))
        return self._not_ready(reasons)

    def _not_ready(self, reasons: Sequence[str]) -> Response:
        message = "not ready: " + "; ".join(reasons)
        return Response(503, _encode(_NotReady("not_ready", message, reasons, self._sources.notes())))

    async def _jwks(self, head: Head, _peername: Any) -> Response:
        document = self._sources.jwks()
        if document is None:
            # No empty one, which a verifier would keep for minutes.
            return self._not_ready(["jwks: no key is published yet"])
        etag = f'"{hashlib.sha256(document).hexdigest()[:32]}"'
        fields = f"Cache-Control: public, max-age={int(self._sources.max_age_s)}\r\nETag: {etag}\r\n".encode(
            "ascii"
        )
        # RFC 9110 section 13.1.2: a weak comparison.
        known = [tag.strip().removeprefix("W/") for tag in head.if_none_match.split(",")]
        if etag in known or "*" in known:
            return Response(304, b"", fields)
        return Response(200, document, _JSON + fields)
