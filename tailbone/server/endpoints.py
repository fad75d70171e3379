"""The routes of the issuer, and what they answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence  # noqa: TC003 -- msgspec resolves them
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from tailbone.errors import (
    BrowserRequestError,
    LogUnavailableError,
    Problem,
    RateLimitError,
    TailboneError,
    UnknownPathError,
    WrongHostError,
)
from tailbone.jwks.discovery import DISCOVERY_PATH, JWKS_PATH
from tailbone.jwks.store import cache_control
from tailbone.server.query import parse_query
from tailbone.server.responses import Refusal, Request, Response
from tailbone.token.explain import ExplainedRule  # noqa: TC001 -- msgspec resolves it

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tailbone.process.log import Logger
    from tailbone.server.hosts import AllowedHosts
    from tailbone.server.rate_limit import RateLimit
    from tailbone.server.request_head import Head
    from tailbone.token.identity import Identity
    from tailbone.token.issuer import Issuer

ISSUE_PATH: Final = "/issue"
WHOAMI_PATH: Final = "/whoami"
HEALTH_PATH: Final = "/_healthz"
READY_PATH: Final = "/_readyz"


class Route(NamedTuple):
    """The methods that a path accepts, and the name of the method of ``Endpoints`` that answers."""

    methods: tuple[str, ...]
    handler: str


_GET: Final = ("GET", "HEAD")
ROUTES: Final = {
    ISSUE_PATH: Route(("POST",), "issue"),
    WHOAMI_PATH: Route(_GET, "whoami"),
    HEALTH_PATH: Route(_GET, "healthz"),
    READY_PATH: Route(_GET, "readyz"),
    JWKS_PATH: Route(_GET, "jwks"),
    DISCOVERY_PATH: Route(_GET, "discovery"),
}
"""What each path accepts, and what answers it."""

_NO_JWKS: Final = Problem("no_jwks", "jwks: no key is published yet")

_encode = msgspec.json.Encoder().encode


class _Issued(msgspec.Struct, frozen=True):
    token: str
    expires_at: int


class _Preview(msgspec.Struct, frozen=True):
    claims: Mapping[str, Any]
    rules: Sequence[ExplainedRule]
    notes: Sequence[str]


class _WhoAmI(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``GET /whoami``.

    Attributes:
        user: the login name; absent for a tagged node, as is ``display_name``.
        tags: absent for a person's node.
        key_expires_at: when the node's key expires, in Unix seconds; null for never.
        audiences: which may be requested; ``*`` means any.
        without_audience: whether a token without ``aud`` may be requested.
        refusal: why nothing may be requested; null if something may.
        roles: the caller's roles in the admin API.
    """

    sub: str
    user: str | UnsetType = UNSET
    display_name: str | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    node: str
    node_id: str
    addresses: tuple[str, ...]
    shared: bool
    expired: bool
    key_expires_at: int | None
    audiences: Sequence[str]
    without_audience: bool
    refusal: Refusal | None
    roles: Sequence[str]


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


@dataclass(kw_only=True, eq=False)
class Endpoints:
    """Answers requests whose head has passed the check (``request.conn_info.ctx.head``).

    Attributes:
        issuer: makes the tokens.
        identify: returns who a transport's ``peername`` is; raises UnknownCallerError.
        rate_limit: how many requests of a caller's node are answered.
        roles: returns the roles that a caller has in the admin API.
        hosts: the accepted Host fields: addresses, short and full DNS name, allowed hosts.
        readiness: returns why no token can be issued now; empty if one can.
        notes: returns problems that do not stop token issuance, such as ``jwks_stale``.
        published_jwks: returns the last good copy of the published JWKS; None until there is one.
        discovery_of: makes the discovery document for that JWKS; None if the issuer is not a URL.
        max_age_s: how long the two documents may be cached, in seconds.
        version: for ``/_healthz``.
        commit: for ``/_healthz``.
        audit: receives one line for each token before it is sent; if it raises, the token is not sent
            (``get_logger(strict=True)`` raises if the line cannot be written).
    """

    issuer: Issuer
    identify: Callable[[Any], Identity]
    rate_limit: RateLimit
    roles: Callable[[Identity], Sequence[str]]
    hosts: AllowedHosts
    readiness: Callable[[], Sequence[Problem]]
    notes: Callable[[], Sequence[Problem]]
    published_jwks: Callable[[], bytes | None]
    discovery_of: Callable[[bytes], bytes] | None
    max_age_s: float
    version: str
    commit: str
    audit: Logger
    _audit_fails: bool = field(default=False, init=False)

    def add_to(self, app: Any) -> None:
        """Register the routes."""
        for path, (methods, handler) in ROUTES.items():
            app.add_route(getattr(self, handler), path, methods=methods, name=handler, strict_slashes=True)

    async def issue(self, request: Request) -> Response:
        """``POST /issue``: a token for the caller.

        The order of the checks is part of the interface: form of the head, path, method, length of the body
        (``app``), then Host, browser, caller, rate limit, query.
        """
        identity = self._caller(request)
        try:
            caller = self.issuer.admit(identity)
            wanted = parse_query(request.conn_info.ctx.head.query)
            if wanted.dry_run:
                preview = self.issuer.preview(caller, wanted)
                return Response(_encode(_Preview(preview.claims, preview.rules, preview.notes)))
            issued = await self.issuer.issue(caller, wanted)
        except TailboneError:
            _name_caller(request, identity)
            raise
        # Logged before the token is sent, so that no token is issued unlogged.
        by = {} if issued.caller == issued.sub else {"caller": issued.caller}
        self._audit(
            "token issued",
            sub=issued.sub,
            **by,
            kid=issued.kid,
            jti=issued.jti,
            aud=issued.aud,
            node=issued.node,
        )
        return Response(_encode(_Issued(issued.token, issued.expires_at)))

    def _caller(self, request: Request) -> Identity:
        """Return who calls, after the checks of Host, browser fields and rate limit."""
        head: Head = request.conn_info.ctx.head
        if head.host not in self.hosts:
            raise WrongHostError("Host is neither an address nor a name of this server, nor an allowed host")
        if head.origin or head.fetch_site != "none":
            raise BrowserRequestError(
                "a web page may not ask for its visitor's token (Origin, Sec-Fetch-Site)"
            )
        identity = self.identify(request.transport.get_extra_info("peername"))
        if not self.rate_limit.admits(identity.node_id):
            _name_caller(request, identity)
            raise RateLimitError(
                f"your node makes more than {self.rate_limit.per_s} requests per second (server.rateLimit); "
                "try again in a second"
            )
        return identity

    async def whoami(self, request: Request) -> Response:
        """``GET /whoami``: who the caller is and what it may request, even if it gets no token."""
        identity = self._caller(request)
        tagged = bool(identity.tags)
        available = self.issuer.available(identity)
        refusal = available.refusal
        return Response(
            _encode(
                _WhoAmI(
                    sub=identity.subject,
                    user=UNSET if tagged else identity.login,
                    display_name=UNSET if tagged else identity.display_name,
                    tags=identity.tags if tagged else UNSET,
                    node=identity.node,
                    node_id=identity.node_id,
                    addresses=identity.addresses,
                    shared=identity.shared,
                    expired=identity.expired,
                    key_expires_at=identity.key_expiry or None,
                    audiences=available.audiences,
                    without_audience=available.without_audience,
                    refusal=None if refusal is None else Refusal(refusal.code, refusal.message),
                    roles=self.roles(identity),
                )
            )
        )

    def _audit(self, event: str, **fields: Any) -> None:
        """Log an event that must not be lost.

        Raises:
            LogUnavailableError: it cannot be written.
        """
        self._audit_fails = True
        try:
            self.audit.info(event, **fields)
        except OSError as error:
            raise LogUnavailableError(
                "the server cannot log the token; /_readyz says when it can", detail=str(error)
            ) from error
        self._audit_fails = False

    def _audit_reasons(self) -> Sequence[Problem]:
        """Return a problem if the last token could not be logged.

        In that case, write a test line to find out whether the log works again.
        """
        if self._audit_fails:
            try:
                self._audit("the lines of tokens can be written again")
            except LogUnavailableError:
                return (Problem("log_unavailable", "log: the line of a token cannot be written"),)
        return ()

    async def healthz(self, _request: Request) -> Response:
        """``GET /_healthz``: whether the process answers."""
        return Response(_encode(_Health(ok=True, version=self.version, commit=self.commit)))

    async def readyz(self, _request: Request) -> Response:
        """``GET /_readyz``: whether a token could be issued now."""
        reasons = [*self.readiness(), *self._audit_reasons()]
        if reasons:
            return self._not_ready(reasons)
        return Response(_encode(_Ready(ready=True, reasons=(), notes=_notes(self.notes()))))

    def _not_ready(self, reasons: Sequence[Problem]) -> Response:
        codes = _codes(reasons)
        message = f"not ready: {', '.join(codes)}; tailbone keys status says more"
        return Response(_encode(_NotReady("not_ready", message, codes, _notes(self.notes()))), 503)

    async def jwks(self, request: Request) -> Response:
        """``GET /.well-known/jwks.json``: the last good copy of the published JWKS."""
        document = self.published_jwks()
        if document is None:
            # An empty document would be cached by verifiers for minutes.
            return self._not_ready([_NO_JWKS])
        return self._document(request, document)

    async def discovery(self, request: Request) -> Response:
        """``GET /.well-known/openid-configuration``: the discovery document for that JWKS.

        Raises:
            UnknownPathError: the issuer is not a URL.
        """
        if self.discovery_of is None:
            raise UnknownPathError("no discovery document: this server's issuer is not a URL")
        jwks = self.published_jwks()
        if jwks is None:
            return self._not_ready([_NO_JWKS])
        return self._document(request, self.discovery_of(jwks))

    def _document(self, request: Request, document: bytes) -> Response:
        """Answer with a public document, which may be cached."""
        etag = _etag(document)
        # RFC 9110 section 13.1.2: a weak comparison.
        asked: str = request.conn_info.ctx.head.if_none_match
        known = [tag.strip().removeprefix("W/") for tag in asked.split(",")]
        unchanged = etag in known or "*" in known
        response = Response(
            b"" if unchanged else document, 304 if unchanged else 200, cache_control(self.max_age_s)
        )
        response.headers["ETag"] = etag
        return response


def _name_caller(request: Request, identity: Identity) -> None:
    """Add who calls to the line about a refused request."""
    request.ctx.caller = {"sub": identity.subject, "node": identity.node}


def _codes(problems: Iterable[Problem]) -> list[str]:
    """Return the codes of problems, which any peer may see; their texts name keys, paths and hosts."""
    return list(dict.fromkeys(problem.code for problem in problems))


def _notes(problems: Iterable[Problem]) -> list[str]:
    """Return the codes, or the texts of what is public anyway."""
    return list(dict.fromkeys(problem.public or problem.code for problem in problems))


@lru_cache(maxsize=2)
def _etag(document: bytes) -> str:
    return f'"{hashlib.sha256(document).hexdigest()[:32]}"'
