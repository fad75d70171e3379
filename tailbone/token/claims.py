"""Build the claims of a token from identity, decision and time. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailbone.token.identity import Identity
    from tailbone.token.policy import Decision, IssuerSettings


class Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The claims of a token, in the order they are written (RFC 7519 section 4.1, and tailbone's own).

    A user's token has ``user`` and ``display_name``, a tagged node's ``tags``. ``aud`` is there if granted.
    """

    iss: str
    sub: str
    aud: str | UnsetType = UNSET
    iat: int
    nbf: int
    exp: int
    jti: str | UnsetType = UNSET
    user: str | UnsetType = UNSET
    display_name: str | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    node: str
    node_id: str


def build(
    identity: Identity,
    *,
    issuer: str,
    audience: str | None,
    ttl_s: int,
    backdate_s: float,
    now: float,
    jti: str | UnsetType = UNSET,
    subject: str = "",
) -> Claims:
    """Build the claims of a token.

    ``exp`` counts from now. ``iat`` and ``nbf`` are ``backdate_s`` earlier, since verifiers without leeway
    refuse a token from a clock that is a second ahead of theirs.

    Args:
        identity: the caller.
        issuer: the claim ``iss``.
        audience: the claim ``aud``; None omits it.
        ttl_s: lifetime in seconds.
        backdate_s: how far ``iat`` and ``nbf`` are before now, in seconds.
        now: Unix time in seconds.
        jti: a unique id (RFC 7519 section 4.1.7); omitted only where nothing is signed.
        subject: the claim ``sub``; empty for the caller's own.
    """
    issued_at = int(now - backdate_s)
    tagged = bool(identity.tags)
    return Claims(
        iss=issuer,
        sub=subject or identity.subject,
        aud=UNSET if audience is None else audience,
        iat=issued_at,
        nbf=issued_at,
        exp=int(now) + ttl_s,
        jti=jti,
        user=UNSET if tagged else identity.login,
        display_name=UNSET if tagged else identity.display_name,
        tags=identity.tags if tagged else UNSET,
        node=identity.node,
        node_id=identity.node_id,
    )


def of_decision(
    decision: Decision,
    identity: Identity,
    settings: IssuerSettings,
    *,
    now: float,
    expiry_s: float,
    jti: str | UnsetType = UNSET,
) -> Claims:
    """Build the claims of the token that the policy has decided on.

    Args:
        decision: what the caller gets.
        identity: the caller.
        settings: the issuer's.
        now: Unix time in seconds.
        expiry_s: how long the signing key's tokens may last, in seconds.
        jti: a unique id; omitted only where nothing is signed.
    """
    return build(
        identity,
        issuer=settings.issuer,
        audience=decision.audience,
        ttl_s=int(min(decision.ttl_s, expiry_s)),
        backdate_s=settings.backdate_s,
        now=now,
        jti=jti,
        subject=decision.subject,
    )


def encode(claims: Claims, further: Mapping[str, Any]) -> bytes:
    """Return the JSON of a token: its own claims, then those that grants add, whose names all differ."""
    if not further:
        return _encode(claims)
    return _encode(claims)[:-1] + b"," + _encode(further)[1:]


_encode = msgspec.json.Encoder().encode
