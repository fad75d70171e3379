"""The policy: ``admit`` checks who calls, ``decide`` checks what is requested. Pure."""

from __future__ import annotations

import msgspec

from tailbone.config.durations import format_duration
from tailbone.errors import (
    AudienceNotAllowedError,
    BadParameterError,
    ExpiredCallerError,
    SharedCallerError,
)
from tailbone.token.identity import Identity  # noqa: TC001 -- msgspec resolves it


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that decide what a token may contain.

    Attributes:
        issuer: the claim ``iss``.
        expiry_s: the longest lifetime in seconds, which also applies if none is requested.
        backdate_s: how far ``iat`` and ``nbf`` are before now, in seconds.
        audiences: which audiences may be requested.
        allow_shared: whether a node that is shared in from another tailnet gets a token.
    """

    issuer: str
    expiry_s: int
    backdate_s: float = 5.0
    audiences: tuple[str, ...] = ()
    allow_shared: bool = False


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller requests.

    Attributes:
        audience: the one audience of the token; None requests no ``aud``.
        ttl_s: lifetime in seconds; None requests the longest.
    """

    audience: str | None = None
    ttl_s: float | None = None


class Admitted(msgspec.Struct, frozen=True):
    """A caller that ``admit`` has accepted, so that the type checker finds an unchecked one."""

    identity: Identity


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller gets.

    Attributes:
        audience: the claim ``aud``; None omits it.
        ttl_s: lifetime in whole seconds, at least 1.
    """

    audience: str | None
    ttl_s: int


def admit(identity: Identity, rules: Rules) -> Admitted:
    """Check that this caller may request tokens at all.

    Raises:
        ExpiredCallerError: the node's key has expired.
        SharedCallerError: the node is shared in from another tailnet, which is not allowed.
    """
    if identity.expired:
        raise ExpiredCallerError("the key of your node has expired: log in to the tailnet again")
    if identity.shared and not rules.allow_shared:
        raise SharedCallerError(
            "your node is shared in from another tailnet; only nodes of this tailnet get tokens"
        )
    return Admitted(identity)


def decide(request: TokenRequest, rules: Rules) -> Grant:
    """Decide what an admitted caller gets for ``request``.

    Raises:
        AudienceNotAllowedError: the audience is not one of ``rules.audiences``.
        BadParameterError: the lifetime is not whole seconds up to ``rules.expiry_s``.
    """
    ttl_s = _lifetime(request.ttl_s, rules.expiry_s)
    audience = request.audience
    if audience is not None and audience not in rules.audiences:
        allowed = ", ".join(rules.audiences) or "none: issuer.audiences is empty"
        raise AudienceNotAllowedError(f"this audience is not allowed; allowed: {allowed}")
    return Grant(audience=audience, ttl_s=ttl_s)


def _lifetime(requested_s: float | None, expiry_s: int) -> int:
    if requested_s is None:
        return expiry_s
    # exp is in whole seconds, so a token cannot have a lifetime with a fraction.
    if not (1 <= requested_s <= expiry_s) or requested_s != int(requested_s):
        longest = format_duration(expiry_s)
        raise BadParameterError(f"ttl must be whole seconds from 1s to {expiry_s}s ({longest})")
    return int(requested_s)
