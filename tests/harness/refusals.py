"""What every framework must answer, with requests of each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tailbone.testing import FakeIssuer

AUDIENCE = "service"
TAG = "tag:ci"


class Case(NamedTuple):
    """A request and its answer.

    Attributes:
        headers: the request's.
        status: the answer's.
        challenge: the answer's WWW-Authenticate.
    """

    headers: list[tuple[str, str]]
    status: int
    challenge: str | None


def bearer(token: str) -> list[tuple[str, str]]:
    """Return the headers of a request with a token."""
    return [("Authorization", f"Bearer {token}")]


def refused(issuer: FakeIssuer) -> list[Case]:
    """Return requests that are refused by a service for ``AUDIENCE`` that requires ``TAG``."""

    def invalid(description: str) -> str:
        return f'Bearer error="invalid_token", error_description="{description}"'

    good = issuer.token(audience=AUDIENCE, as_=TAG)
    return [
        Case([], 401, "Bearer"),
        Case([("Authorization", "Basic YTpi")], 401, "Bearer"),
        Case(bearer("x"), 401, invalid("the token is not a signed JWT in the compact form")),
        Case(bearer(f"{good} {good}"), 401, invalid("the Authorization field is not Bearer and a token")),
        Case(bearer(issuer.token(audience="x")), 401, invalid("the token is for another audience")),
        Case(bearer(issuer.token(audience=AUDIENCE, expired=True)), 401, invalid("the token has expired")),
        Case(
            bearer(issuer.token(audience=AUDIENCE)),
            403,
            'Bearer error="insufficient_scope", error_description="the token\'s caller is not permitted"',
        ),
    ]
