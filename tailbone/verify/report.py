"""Report to people what is in a token, whether it verifies, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tailbone import base64url
from tailbone.verify.bearer import ANYBODY
from tailbone.verify.errors import VerificationError, WrongIssuerError
from tailbone.verify.http import check_url
from tailbone.verify.token import parse_token
from tailbone.verify.verifier import Verifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailbone.verify.require import Requirement


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a token.

    Attributes:
        verified: whether it verifies, and its caller is permitted.
        error: the code of the reason why not; empty if it does.
        message: the same, for people.
        header: the members of its header, as far as it can be read.
        claims: its claims, likewise. They are the issuer's only if the token verifies.
        notes: what was not checked.
    """

    verified: bool
    error: str
    message: str
    header: dict[str, Any]
    claims: dict[str, Any]
    notes: tuple[str, ...]


def report_on(
    token: str,
    *,
    issuer: str = "",
    jwks_url: str | None = None,
    audience: Sequence[str] = (),
    require: Requirement = ANYBODY,
) -> Report:
    """Verify a token.

    Args:
        token: the token; not necessarily a good one.
        issuer: what its claim ``iss`` must be; empty accepts the one that it names.
        jwks_url: the URL of the JWKS; None finds it by the issuer.
        audience: one of these must be in the claim ``aud``; empty accepts any.
        require: who is permitted.

    Raises:
        ConfigError: an argument is not allowed.
    """
    header, claims = (_members(part) for part in f"{token}..".split(".")[:2])
    notes = []
    if not issuer:
        notes.append("the issuer is the one that the token names: --issuer checks that it is yours")
    if not audience:
        notes.append("the audience was not checked: --audience checks that the token is for your service")
    error, message = "", ""
    try:
        parse_token(token)
        issuer = issuer or _named_issuer(claims, jwks_url)
        verifier = Verifier(issuer, audience, jwks_url=jwks_url, any_audience=not audience)
        require.check(verifier.verify(token))
    except VerificationError as failure:
        error, message = failure.code, failure.message
    return Report(
        verified=not error, error=error, message=message, header=header, claims=claims, notes=tuple(notes)
    )


def _named_issuer(claims: dict[str, Any], jwks_url: str | None) -> str:
    """Return the issuer that a token names.

    Raises:
        WrongIssuerError: its keys cannot be found by it.
    """
    issuer = str(claims.get("iss", ""))
    if jwks_url is None:
        try:
            check_url(issuer)
        except ValueError as error:
            raise WrongIssuerError(
                "the token's issuer is not the URL of one, so its keys must be named: --jwks-url",
                detail=str(error),
            ) from None
    return issuer


def _members(part: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(base64url.decode(part.encode("ascii")), type=dict[str, Any])
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return {}
