"""A token as its client sees it."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

from tailbone.errors import IssuerAnswerError
from tailbone.json_object import parse_object


class Token(NamedTuple):
    """A token.

    Attributes:
        value: the JWT. ``repr`` does not show it.
        expires_at: its end, in Unix seconds of the issuer's clock.
        life_s: how many seconds it was still valid for when it arrived, whatever this machine's clock says.
    """

    value: str
    expires_at: int
    life_s: float

    def __repr__(self) -> str:
        return f"Token(expires_at={self.expires_at})"


def claims_of(jwt: str) -> dict[str, Any]:
    """Return the claims of a token, without verifying it.

    Raises:
        IssuerAnswerError: it is not a JWT.
    """
    try:
        payload = jwt.split(".")[1]
        claims = parse_object(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        claims = None
    if claims is None:
        raise IssuerAnswerError("the issuer's answer does not contain a JWT")
    return claims
