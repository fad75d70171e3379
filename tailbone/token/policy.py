"""What a caller may have: ``admit`` checks who calls, ``decide`` what is asked for. Pure."""

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
    """The settings that decide what a token may say.

    Attributes:
        issuer: the claim ``iss``.
        expiry_s: the longest lifetime in seconds, and the one of a token for which none is asked.
        backdate_s: how far ``iat`` and ``nbf`` lie before now, in seconds.
        audiences: which audiences may be asked for.
        allow_shared: whether a node shared in from another tailnet gets a token.
    """

    issuer: str
    expiry_s: int
    backdate_s: float = 5.0
    audiences: tuple[str, ...] = ()
    allow_shared: bool = False


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks for.

    Attributes:
        audience: the one audience of the token; None asks for no ``aud``.
        ttl_s: lifetime in seconds; None asks for the longest.
    """

    audience: str | None = None
    ttl_s: float | None = None


class Admitted(msgspec.Struct, frozen=True):
    """A caller that ``admit`` has let in: the type checker finds one that was not checked."""

    identity: Identity


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller gets.

    Attributes:
        audience: the claim ``aud``; None leaves it out.
        ttl_s: lifetime in whole seconds, at least 1.
    """

    audience: str | None
    ttl_s: int


def admit(identity: Identity, rules: Rules) -> Admitted:
    """Check that this caller may ask for anything at all.

    Raises:
        ExpiredCallerError: the node's key has expired.
        SharedCallerError: the node is shared in from another tailnet, and that is not allowed.
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
        raise AudienceNotAllowedError(f"this audience may not be asked for; allowed: {allowed}")
    return Grant(audience=audience, ttl_s=ttl_s)


def _lifetime(asked_s: float | None, expiry_s: int) -> int:
    if asked_s is None:
        return expiry_s
    # exp is in whole seconds: a fraction would be a lifetime that the token does not have.
    if not (1 <= asked_s <= expiry_s) or asked_s != int(asked_s):
        longest = format_duration(expiry_s)
        raise BadParameterError(f"ttl: whole seconds from 1s to {expiry_s}s ({longest}) are allowed")
    return int(asked_s)
