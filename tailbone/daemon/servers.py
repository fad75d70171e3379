"""Make the server of each component from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from tailbone.config.checks import TAILNET
from tailbone.version import commit, version

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tailbone.admin.access import Access
    from tailbone.admin.service import AdminServer
    from tailbone.config.model import Config
    from tailbone.counting import IssuerCounts
    from tailbone.daemon.node import TailnetNode
    from tailbone.errors import Problem
    from tailbone.keys.lifecycle import KeyLifecycle
    from tailbone.process.audit_log import AuditLog
    from tailbone.process.log import Logger
    from tailbone.server import IssuerServer, Probes
    from tailbone.server.probes import Page
    from tailbone.token.issuer import Issuer
    from tailbone.token.policy import IssuerSettings
    from tailbone.token.void_rules import VoidRules

_MODULES = {"issuer": "tailbone.server", "admin": "tailbone.admin.service"}


class Server(Protocol):
    """A server on a Unix socket, to which the node's bridge connects."""

    async def start(self, unix_path: Path) -> None:
        """Listen on ``unix_path``; when this returns, connections are accepted."""

    async def close(self, grace_s: float) -> None:
        """Accept nothing new, let requests in flight end within ``grace_s`` seconds, and stop."""


@dataclass(frozen=True, kw_only=True)
class Dependencies:
    """What the servers need from the rest of the daemon.

    Attributes:
        config: all settings.
        node: has joined; identifies callers.
        keys: sign the tokens; the admin API manages them.
        readiness: returns why no token can be issued now; nothing when one can.
        notes: returns problems that do not stop token issuance.
        metrics: renders the metrics for an Accept field; None if they are not served.
        counts: counts the issuer's requests.
        admin_calls: counts the calls of the admin API, by outcome.
        void_rules: warns of void rules in the tailnet's policy, and counts them.
        log: for everything that happens.
        audit: gets the line of each token and admin call, before the token or answer leaves.
        on_reload: functions that apply new settings to a running server; each server adds its own.
    """

    config: Config
    node: TailnetNode
    keys: KeyLifecycle
    readiness: Callable[[], Sequence[Problem]]
    notes: Callable[[], Sequence[Problem]]
    metrics: Callable[[str], Page] | None
    counts: IssuerCounts
    admin_calls: Counter[str]
    void_rules: VoidRules
    log: Logger
    audit: AuditLog
    on_reload: list[Callable[[Config], None]]


def import_servers(components: Sequence[str]) -> None:
    """Import the servers of the components; Sanic and gRPC take two thirds of a start."""
    for component in components:
        import_module(_MODULES[component])


def make_server(component: str, needs: Dependencies) -> Server:
    """Make the server of ``issuer`` or ``admin``, not started."""
    return _issuer(needs) if component == "issuer" else _admin(needs)


def _issuer(needs: Dependencies) -> IssuerServer:
    from tailbone.server import AllowedHosts, Endpoints, IssuerServer, RateLimit

    config = needs.config
    allowed = config.server.allowed_hosts
    tailnet = config.server.metrics_binding == TAILNET

    def hosts(dns_name: str, addresses: Sequence[str]) -> AllowedHosts:
        short = dns_name.partition(".")[0]
        return AllowedHosts([*addresses, dns_name, short, *allowed])

    def renamed(dns_name: str, addresses: Sequence[str]) -> None:
        endpoints.hosts = hosts(dns_name, addresses)

    def reloaded(config: Config) -> None:
        nonlocal allowed
        allowed = config.server.allowed_hosts
        endpoints.hosts = hosts(*needs.node.known_as)

    endpoints = Endpoints(
        issuer=_token_issuer(needs),
        identify=needs.node.node.identify,
        rate_limit=RateLimit(config.server.rate_limit),
        roles=_access(config).roles_of,
        hosts=hosts(*needs.node.known_as),
        probes=probes(needs.readiness, needs.notes, needs.metrics if tailnet else None),
        counts=needs.counts,
        published_jwks=needs.keys.published_document,
        discovery_of=discovery_document(config),
        max_age_s=config.keys.max_age_s,
        audit=needs.audit,
        keys=needs.keys.known_keys,
        # With acl, everybody who reaches the admin port is an admin, but this is another port.
        audit_last=needs.audit.last if config.admin.access == "grant" else None,
    )
    needs.node.on_renamed = renamed
    needs.on_reload.append(reloaded)
    return IssuerServer(endpoints, needs.log, needs.counts, needs.audit.trail)


def probes(
    readiness: Callable[[], Sequence[Problem]],
    notes: Callable[[], Sequence[Problem]],
    metrics: Callable[[str], Page] | None,
) -> Probes:
    """Return what this process says about itself."""
    from tailbone.server import Probes

    return Probes(readiness=readiness, notes=notes, version=version(), commit=commit(), metrics=metrics)


def _token_issuer(needs: Dependencies) -> Issuer:
    """Return what makes tokens, and explains them."""
    from tailbone.token.issuer import Issuer

    issuer = Issuer(issuer_settings(needs.config), lambda: needs.keys.ring, note_void=needs.void_rules.note)

    def reloaded(config: Config) -> None:
        issuer.settings = issuer_settings(config)

    needs.on_reload.append(reloaded)
    return issuer


def issuer_settings(config: Config) -> IssuerSettings:
    """Return the settings that decide what a token may contain."""
    from tailbone.token.policy import IssuerSettings

    return IssuerSettings(
        issuer=config.keys.issuer,
        expiry_s=int(config.keys.expiry_s),
        backdate_s=config.keys.backdate_s,
        audiences=config.issuer.audiences,
        allow_shared=config.issuer.allow_shared,
        access=config.issuer.access,
        capability=config.issuer.capability,
        deny=frozenset(config.issuer.deny),
    )


def _access(config: Config) -> Access:
    """Return who may use the admin API."""
    from tailbone.admin.access import Access

    return Access(mode=config.admin.access, capability=config.admin.capability)


def _admin(needs: Dependencies) -> AdminServer:
    from tailbone.admin.service import AdminServer, ServerStatus

    config = needs.config

    def status() -> ServerStatus:
        signing = needs.keys.ring.signing
        return ServerStatus(
            version=version(),
            commit=commit(),
            issuer=config.keys.issuer,
            jwks=_jwks_url(config),
            signing_key_id=signing.kid if signing else "",
            reasons=needs.readiness(),
            notes=needs.notes(),
        )

    return AdminServer(
        lifecycle=needs.keys,
        identify=needs.node.node.identify,
        find=needs.node.node.whois,
        explain=_token_issuer(needs).explain,
        access=_access(config),
        void_rules=needs.void_rules,
        status=status,
        calls=needs.admin_calls,
        log=needs.log,
        audit=needs.audit.log,
        trail=needs.audit.trail,
    )


def discovery_document(config: Config) -> Callable[[bytes], bytes] | None:
    """Return the function from a JWKS to its discovery document; None if the issuer is not a URL."""
    from tailbone.jwks.discovery import discovery_of
    from tailbone.jwks.document import Document

    discovery = discovery_of(config.keys.issuer, jwks_uri=config.keys.jwks_uri)
    return None if discovery is None else lambda jwks: discovery.render(Document.parse(jwks))


def _jwks_url(config: Config) -> str:
    """Return where the JWKS is published, as a URL; empty without a bucket."""
    bucket = config.keys.bucket
    if not bucket:
        return ""
    place = bucket if "://" in bucket else f"s3://{bucket}"
    return f"{place.rstrip('/')}/{config.keys.key_path}"
