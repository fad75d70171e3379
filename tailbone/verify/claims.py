"""The claims of a verified token, and the checks of issuer, audience and time. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tailbone.verify.errors import (
    MalformedClaimsError,
    TokenExpiredError,
    TokenNotYetValidError,
    WrongAudienceError,
    WrongIssuerError,
)

_Seconds = int | float
# Later times overflow the functions of datetime and time.
_LATEST_S: Final = 253402300799.0


class OtherClaims(dict[str, Any]):
    """Claims that are not tailbone's own. No JSON value is decoded to this type, whatever its name."""

    __slots__ = ()


class Claims(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """What a verified token says about its caller. A claim that the token does not have is empty.

    Attributes:
        iss: the issuer.
        sub: the caller: ``user:<user id>``, ``node:<stable node id>``, or ``cap:…`` by a grant. Never reused.
        exp: when the token expires, in Unix seconds.
        aud: its audience, or several of them.
        iat: when it was issued, in Unix seconds.
        nbf: when it becomes valid, in Unix seconds.
        jti: its unique id.
        user: the login name of a person.
        display_name: the name that this person has chosen. No decision may depend on it.
        tags: the ACL tags of a tagged node.
        node: the full DNS name of the caller's node.
        node_id: the stable id of that node.
        groups: the groups that the tailnet's policy grants.
        scope: the words that the tailnet's policy grants, separated by spaces.
        extra: all other claims.
    """

    iss: str
    sub: str
    exp: _Seconds
    aud: str | tuple[str, ...] = ()
    iat: _Seconds | None = None
    nbf: _Seconds | None = None
    jti: str = ""
    user: str = ""
    display_name: str = ""
    tags: tuple[str, ...] = ()
    node: str = ""
    node_id: str = ""
    groups: tuple[str, ...] = ()
    scope: str = ""
    extra: OtherClaims = msgspec.field(default_factory=OtherClaims, name="")

    @property
    def audiences(self) -> tuple[str, ...]:
        """The members of ``aud``."""
        return (self.aud,) if isinstance(self.aud, str) else self.aud

    @property
    def scopes(self) -> frozenset[str]:
        """The words of ``scope``."""
        return frozenset(self.scope.split())


def decode_claims(payload: bytes) -> Claims:
    """Decode the claims of a token; nothing is checked but their types.

    Raises:
        MalformedClaimsError: the text is not a JSON object, or a claim is missing or has a wrong type.
    """
    try:
        claims = _decode(payload)
    except msgspec.ValidationError:
        claims = _with_others(payload)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise _malformed(str(error)) from None
    if not claims.sub or claims.exp > _LATEST_S:
        raise _malformed("sub is empty, or exp out of range")
    return claims


def _with_others(payload: bytes) -> Claims:
    """Decode claims of which some are not tailbone's own, or malformed."""
    try:
        members = _decode_all(payload)
        members[""] = OtherClaims({name: members.pop(name) for name in members.keys() - _NAMES})
        return msgspec.convert(members, Claims)
    except (ValueError, RecursionError) as error:
        raise _malformed(str(error)) from None


def _malformed(detail: str) -> MalformedClaimsError:
    return MalformedClaimsError(
        "the token's claims are malformed: iss, sub and exp are required, each claim in its own type",
        detail=detail,
    )


def check_claims(
    claims: Claims, *, issuer: str, audience: frozenset[str] | None, now: float, leeway_s: float
) -> None:
    """Check issuer, audience and time (RFC 7519 section 4.1).

    Args:
        claims: the claims of a token whose signature is good.
        issuer: what ``iss`` must be, byte for byte.
        audience: one of these must be in ``aud``; None accepts any audience, and none.
        now: Unix time in seconds.
        leeway_s: by how much the issuer's clock may differ, in seconds.

    Raises:
        WrongIssuerError: another issuer.
        WrongAudienceError: the token is for somebody else.
        TokenExpiredError: the token has expired.
        TokenNotYetValidError: the token is from the future.
    """
    if claims.iss != issuer:
        raise WrongIssuerError("the token is from another issuer")
    aud = claims.aud
    if audience is not None and (aud not in audience if type(aud) is str else audience.isdisjoint(aud)):
        raise WrongAudienceError("the token is for another audience")
    if now - leeway_s >= claims.exp:
        raise TokenExpiredError("the token has expired")
    latest = now + leeway_s
    if (claims.nbf is not None and claims.nbf > latest) or (claims.iat is not None and claims.iat > latest):
        raise TokenNotYetValidError("the token is not valid yet")


_NAMES: Final = frozenset(Claims.__struct_fields__) - {"extra"}
_decode = msgspec.json.Decoder(Claims).decode
_decode_all = msgspec.json.Decoder(dict[str, Any]).decode
