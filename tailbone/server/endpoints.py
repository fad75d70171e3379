"""The routes of the issuer, and what they answer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence  # noqa: TC003 -- msgspec resolves them
from dataclasses import dataclass
from functools import lru_cache, partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tailbone.counting import PREVIEWED, UNREAD_AUDIENCE, audience_class
from tailbone.errors import RateLimitError, TailboneError, UnknownPathError
from tailbone.jwks.discovery import DISCOVERY_PATH, JWKS_PATH
from tailbone.jwks.store import cache_control
from tailbone.server.hosts import check_source, check_visit
from tailbone.server.overview import Overview, key_line, offers, who_am_i
from tailbone.server.page import page_response
from tailbone.server.query import parse_query
from tailbone.server.responses import Request, Response
from tailbone.server.routes import ROUTES
from tailbone.token.explain import ExplainedRule  # noqa: TC001 -- msgspec resolves it
from tailbone.tsnet.peername import address_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.counting import IssuerCounts
    from tailbone.keys.listing import KeyInfo
    from tailbone.process.audit_log import AuditLog
    from tailbone.server.hosts import AllowedHosts
    from tailbone.server.probes import Probes
    from tailbone.server.rate_limit import RateLimit
    from tailbone.server.request_head import Head
    from tailbone.server.routes import Route
    from tailbone.token.identity import Identity
    from tailbone.token.issuer import Issuer

_AUDIT_LINES: Final = 20
_NO_JWKS: Final = ("no_jwks",)

_encode = msgspec.json.Encoder().encode


class _Issued(msgspec.Struct, frozen=True):
    token: str
    expires_at: int


class _Preview(msgspec.Struct, frozen=True):
    claims: Mapping[str, Any]
    rules: Sequence[ExplainedRule]
    notes: Sequence[str]


@dataclass(kw_only=True, eq=False)
class Endpoints:
    """Answers requests whose head has passed the check (``request.conn_info.ctx.head``).

    Attributes:
        issuer: makes the tokens.
        identify: returns who a transport's ``peername`` is; raises UnknownCallerError.
        rate_limit: how many requests of a caller's node are answered.
        roles: returns the roles that a caller has in the admin API.
        hosts: the accepted Host fields: addresses, short and full DNS name, allowed hosts.
        probes: what the process says about itself.
        counts: counts the requests for tokens.
        published_jwks: returns the last good copy of the published JWKS; None until there is one.
        discovery_of: makes the discovery document for that JWKS; None if the issuer is not a URL.
        max_age_s: how long the two documents may be cached, in seconds.
        audit: receives one line for each token before it is sent; if it raises, the token is not sent.
        keys: returns the keys by the last good JWKS.
        audit_last: returns that many last lines of the audit file, for admins; None if nobody sees them.
        clock: returns Unix time in seconds.
    """

    issuer: Issuer
    identify: Callable[[Any], Identity]
    rate_limit: RateLimit
    roles: Callable[[Identity], Sequence[str]]
    hosts: AllowedHosts
    probes: Probes
    counts: IssuerCounts
    published_jwks: Callable[[], bytes | None]
    discovery_of: Callable[[bytes], bytes] | None
    max_age_s: float
    audit: AuditLog
    keys: Callable[[], Sequence[KeyInfo]]
    audit_last: Callable[[int], Sequence[str]] | None = None
    clock: Callable[[], float] = time.time

    @property
    def routes(self) -> Mapping[str, Route]:
        """See ``Handlers``."""
        return ROUTES

    async def issue(self, request: Request) -> Response:
        """``POST /issue``: a token for the caller.

        The order of the checks is part of the interface: form of the head, path, method, length of the body
        (``app``), then Host, browser, caller, rate limit, query.
        """
        began = perf_counter()
        identity = self._caller(request)
        audience, wanted = UNREAD_AUDIENCE, None
        try:
            caller = self.issuer.admit(identity)
            wanted = parse_query(request.conn_info.ctx.head.query)
            audience = audience_class(wanted.audience, self.issuer.settings.audiences)
            if wanted.dry_run:
                preview = self.issuer.preview(caller, wanted)
                self.counts.requests[PREVIEWED, audience] += 1
                return Response(_encode(_Preview(preview.claims, preview.rules, preview.notes)))
            issued = await self.issuer.issue(caller, wanted)
            # Logged before the token is sent, so that no token is issued unlogged.
            by: dict[str, Any] = {} if issued.caller == issued.sub else {"caller": issued.caller}
            if issued.rules:
                by["rules"] = issued.rules
            self.audit.write(
                "token issued",
                sub=issued.sub,
                **by,
                kid=issued.kid,
                jti=issued.jti,
                aud=issued.aud,
                node=issued.node,
                address=address_of(request.transport.get_extra_info("peername")),
            )
        except TailboneError:
            _name_caller(request, identity)
            request.ctx.audience = audience
            if wanted is not None:
                request.ctx.caller |= {"aud": wanted.audience} | ({"dry_run": True} if wanted.dry_run else {})
            raise
        self.counts.issued(audience, perf_counter() - began)
        return Response(_encode(_Issued(issued.token, issued.expires_at)))

    def _caller(
        self, request: Request, check: Callable[[Head, AllowedHosts], None] = check_source
    ) -> Identity:
        """Return who calls, after the checks of Host, browser fields and rate limit."""
        check(request.conn_info.ctx.head, self.hosts)
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
        return Response(_encode(who_am_i(identity, self.issuer, self.roles(identity))))

    async def page(self, request: Request) -> Response:
        """``GET /``: a page for people, or its JSON if the Accept field names that."""
        destination = request.headers.get("sec-fetch-dest", "")
        identity = self._caller(request, partial(check_visit, destination=destination))
        caller = who_am_i(identity, self.issuer, self.roles(identity))
        overview = Overview(
            issuer=self.issuer.settings.issuer,
            version=self.probes.version,
            caller=caller,
            offers=offers(identity, self.issuer, caller),
            keys=[key_line(key) for key in self.keys()],
            state=self.probes.state(),
            jwks=JWKS_PATH,
            discovery=None if self.discovery_of is None else DISCOVERY_PATH,
            audit=self.audit_last(_AUDIT_LINES) if self.audit_last and "admin" in caller.roles else None,
        )
        if "application/json" in request.headers.get("accept", "").lower():
            return Response(_encode(overview))
        host = request.conn_info.ctx.head.host.lower()
        return page_response(overview, host, self.clock())

    async def healthz(self, _request: Request) -> Response:
        """See ``Probes.healthz``."""
        return self.probes.healthz()

    async def readyz(self, _request: Request) -> Response:
        """See ``Probes.readyz``."""
        return self.probes.readyz()

    async def metrics(self, request: Request) -> Response:
        """See ``Probes.metrics_for``; a page takes milliseconds, so the rate limit is for it, too."""
        self._caller(request)
        return self.probes.metrics_for(request)

    async def jwks(self, request: Request) -> Response:
        """``GET /.well-known/jwks.json``: the last good copy of the published JWKS."""
        document = self.published_jwks()
        if document is None:
            # An empty document would be cached by verifiers for minutes.
            return self.probes.not_ready(_NO_JWKS)
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
            return self.probes.not_ready(_NO_JWKS)
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


@lru_cache(maxsize=2)
def _etag(document: bytes) -> str:
    return f'"{hashlib.sha256(document).hexdigest()[:32]}"'
