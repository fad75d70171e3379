"""Starlette's authentication: ``request.user`` and ``request.auth`` by token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.responses import Response

from tailbone.verify.bearer import bearer_token, refusal_of
from tailbone.verify.errors import MissingTokenError, VerificationError

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from tailbone.verify.claims import Claims
    from tailbone.verify.verifier import AsyncVerifier


class TailboneUser(BaseUser):
    """The caller of a request.

    Attributes:
        claims: what its token says.
    """

    def __init__(self, claims: Claims) -> None:
        self.claims = claims

    @property
    def is_authenticated(self) -> bool:
        """True."""
        return True

    @property
    def display_name(self) -> str:
        """The login name of a person, or the name of a tagged node."""
        return self.claims.user or self.claims.node

    @property
    def identity(self) -> str:
        """The claim ``sub``."""
        return self.claims.sub


class TailboneBackend(AuthenticationBackend):
    """Backend of AuthenticationMiddleware; the scopes are ``authenticated`` and the words of ``scope``.

    ``Middleware(AuthenticationMiddleware, backend=TailboneBackend(verifier), on_error=on_error)``
    """

    def __init__(self, verifier: AsyncVerifier) -> None:
        self._verifier = verifier

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Return who has sent a request; None without a token.

        Raises:
            AuthenticationError: the token does not verify; its cause says why.
        """
        try:
            claims = await self._verifier.verify(bearer_token(conn.headers.getlist("authorization")))
        except MissingTokenError:
            return None
        except VerificationError as error:
            raise AuthenticationError(error.message) from error
        return AuthCredentials(["authenticated", *sorted(claims.scopes)]), TailboneUser(claims)


def on_error(conn: HTTPConnection, error: AuthenticationError) -> Response:  # noqa: ARG001 -- Starlette's
    """Answer a request whose token does not verify as RFC 6750 asks; Starlette itself answers 400."""
    cause = error.__cause__
    if not isinstance(cause, VerificationError):
        raise error
    status, fields, body = refusal_of(cause)
    return Response(body, status, fields)
