"""Bearer tokens in HTTP requests, and the answers to requests that are refused (RFC 6750). Pure."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

from tailbone.verify.errors import (
    KeysUnavailableError,
    MalformedTokenError,
    MissingTokenError,
    NotPermittedError,
    VerificationError,
)
from tailbone.verify.require import Requirement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailbone.verify.claims import Claims
    from tailbone.verify.verifier import AsyncVerifier, Verifier

ANYBODY: Final = Requirement()
"""Every caller whose token verifies."""

CHALLENGE: Final = "Bearer"
"""The field WWW-Authenticate of a request without a token."""

_CREDENTIALS: Final = re.compile(r"bearer +([A-Za-z0-9._~+/=-]+)", re.IGNORECASE)


class Refusal(NamedTuple):
    """The answer to a request that is refused.

    Attributes:
        status: 401, 403, or 503 if the issuer's keys cannot be fetched.
        fields: its header fields.
        body: its JSON text.
    """

    status: int
    fields: dict[str, str]
    body: bytes


def bearer_token(authorization: Sequence[str]) -> str:
    """Return the token of a request.

    Args:
        authorization: the values of its Authorization fields.

    Raises:
        MissingTokenError: it has none, or credentials of another scheme.
        MalformedTokenError: it has several, or a malformed one.
    """
    if len(authorization) > 1:
        raise MalformedTokenError("the request has several Authorization fields")
    value = authorization[0].strip() if authorization else ""
    if value.partition(" ")[0].lower() != "bearer":
        raise MissingTokenError("the request has no bearer token")
    found = _CREDENTIALS.fullmatch(value)
    if found is None:
        raise MalformedTokenError("the Authorization field is not Bearer and a token")
    return found[1]


def authorize(authorization: Sequence[str], verifier: Verifier, require: Requirement) -> Claims:
    """Return the claims of a request's caller.

    Raises:
        VerificationError: the request must be refused; see ``refusal_of``.
    """
    claims = verifier.verify(bearer_token(authorization))
    require.check(claims)
    return claims


async def authorize_async(
    authorization: Sequence[str], verifier: AsyncVerifier, require: Requirement
) -> Claims:
    """Do the same as ``authorize`` in a coroutine."""
    claims = await verifier.verify(bearer_token(authorization))
    require.check(claims)
    return claims


def refusal_of(error: VerificationError, require: Requirement = ANYBODY) -> Refusal:
    """Return the answer to a request that is refused."""
    fields = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    if challenge := challenge_of(error, require):
        fields["WWW-Authenticate"] = challenge
    body = json.dumps({"error": error.code, "message": error.message}).encode()
    return Refusal(status_of(error), fields, body)


def status_of(error: VerificationError) -> int:
    """Return the HTTP status of a refusal."""
    if isinstance(error, NotPermittedError):
        return HTTPStatus.FORBIDDEN
    if isinstance(error, KeysUnavailableError):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.UNAUTHORIZED


def challenge_of(error: VerificationError, require: Requirement = ANYBODY) -> str:
    """Return the field WWW-Authenticate of a refusal (RFC 6750 section 3); empty for none."""
    if isinstance(error, KeysUnavailableError):
        return ""
    if isinstance(error, MissingTokenError):
        return CHALLENGE
    # Messages contain neither quotes nor backslashes.
    if isinstance(error, NotPermittedError):
        scope = f', scope="{" ".join(sorted(require.scope))}"' if require.scope else ""
        return f'{CHALLENGE} error="insufficient_scope", error_description="{error.message}"{scope}'
    return f'{CHALLENGE} error="invalid_token", error_description="{error.message}"'
