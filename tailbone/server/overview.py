"""Overview: what the page shows, as data: caller, offers, keys and state. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 -- msgspec resolves them
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from tailbone.server.probes import State  # noqa: TC001 -- msgspec resolves it
from tailbone.server.responses import Refusal
from tailbone.text import escape
from tailbone.token.policy import TokenRequest

if TYPE_CHECKING:
    from tailbone.keys.listing import KeyInfo
    from tailbone.token.identity import Identity
    from tailbone.token.issuer import Issuer

_MOST_OFFERS: Final = 20
"""How many audiences are explained; all names are in ``WhoAmI.audiences``."""


class WhoAmI(msgspec.Struct, frozen=True, kw_only=True):
    """Who the caller is and what it may request, also the answer of ``GET /whoami``.

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


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request for one audience gets.

    Attributes:
        audience: ``*`` for any that has no offer of its own; null for a token without ``aud``.
        lifetime_s: the longest, in seconds; 0 if the request is refused.
        claims: of the token, without ``jti``.
        refusal: why the request is refused; null if it is not.
    """

    audience: str | None
    lifetime_s: int
    claims: Mapping[str, Any]
    refusal: Refusal | None


class KeyLine(msgspec.Struct, frozen=True, kw_only=True):
    """A signing key, without what only operators may see.

    Attributes:
        key_id: its kid, invisible characters escaped.
        algorithm: likewise.
        state: a ``Phase``, "foreign" for another server's key, or "faulty".
        created_at: Unix seconds; 0 if unknown.
        next_change: what happens to it next; empty for nothing.
        next_change_at: when, in Unix seconds; 0 if unknown.
    """

    key_id: str
    algorithm: str
    state: str
    created_at: int
    next_change: str
    next_change_at: int


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on the page; its JSON form as it stands.

    Attributes:
        issuer: the claim ``iss``.
        version: of tailbone.
        caller: who asks.
        offers: what it may request, without an audience first; twenty at most.
        keys: the published keys and own ones that are not published yet, oldest first.
        state: whether a token could be issued now.
        jwks: the path of the JWKS.
        discovery: the path of the discovery document; null if there is none.
        audit: the last lines of the audit file, the newest first; null if the caller may not see them.
    """

    issuer: str
    version: str
    caller: WhoAmI
    offers: Sequence[Offer]
    keys: Sequence[KeyLine]
    state: State
    jwks: str
    discovery: str | None
    audit: Sequence[str] | None


def who_am_i(identity: Identity, issuer: Issuer, roles: Sequence[str]) -> WhoAmI:
    """Return who a caller is and what it may request."""
    tagged = bool(identity.tags)
    available = issuer.available(identity)
    refusal = available.refusal
    return WhoAmI(
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
        roles=roles,
    )


def offers(identity: Identity, issuer: Issuer, caller: WhoAmI) -> list[Offer]:
    """Return what a request for each audience of ``caller`` gets."""
    audiences = [*([None] if caller.without_audience else []), *caller.audiences]
    return [_offer(identity, issuer, audience) for audience in audiences[:_MOST_OFFERS]]


def _offer(identity: Identity, issuer: Issuer, audience: str | None) -> Offer:
    explained = issuer.explain(identity, TokenRequest(audience=audience))
    refusal = explained.refusal
    return Offer(
        audience=audience,
        lifetime_s=explained.lifetime_s,
        claims=explained.claims,
        refusal=None if refusal is None else Refusal(refusal.code, refusal.message),
    )


def key_line(key: KeyInfo) -> KeyLine:
    """Return what any peer may see of a key: the text of a fault names files."""
    change, at = key.next_change or ("", 0)
    return KeyLine(
        key_id=escape(key.key_id),
        algorithm=escape(key.algorithm),
        state="foreign" if key.foreign else key.state,
        created_at=key.created_at,
        next_change=change,
        next_change_at=int(at),
    )
