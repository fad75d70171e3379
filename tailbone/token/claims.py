"""Claims: identity, grant and time become the claims of a token. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType

if TYPE_CHECKING:
    from tailbone.token.identity import Identity


class Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The claims of a token, in the order they are written (RFC 7519 section 4.1, and tailbone's own).

    ``user`` and ``display_name`` are there for people, ``tags`` for tagged nodes, ``aud`` where granted.
    """

    iss: str
    sub: str
    aud: str | UnsetType = UNSET
    iat: int
    nbf: int
    exp: int
    jti: str
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
    jti: str,
) -> Claims:
    """Write down what a token says.

    ``exp`` counts from now. ``iat`` and ``nbf`` lie ``backdate_s`` before it: verifiers without leeway refuse
    a token from a clock that is a second ahead of theirs.

    Args:
        identity: the caller.
        issuer: the claim ``iss``.
        audience: the claim ``aud``, None for none.
        ttl_s: lifetime in seconds.
        backdate_s: in seconds.
        now: Unix time in seconds.
        jti: an id that no other token has (RFC 7519 section 4.1.7).
    """
    issued_at = int(now - backdate_s)
    tagged = bool(identity.tags)
    return Claims(
        iss=issuer,
        sub=identity.subject,
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
