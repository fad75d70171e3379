"""Django REST framework: authentication by token, and a permission for ``require``.

The settings have ``TAILBONE_VERIFIER``, a ``Verifier``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission

from tailbone.verify.bearer import CHALLENGE, bearer_token, challenge_of
from tailbone.verify.errors import KeysUnavailableError, MissingTokenError, TokenError
from tailbone.verify.wsgi import authorization_of

if TYPE_CHECKING:
    from rest_framework.request import Request

    from tailbone.verify.claims import Claims
    from tailbone.verify.require import Requirement


class TailboneUser:
    """The caller of a request.

    Attributes:
        claims: what its token says.
        pk: the claim ``sub``, which throttling counts by.
        username: the login name of a person, or the name of a tagged node.
    """

    is_authenticated = True
    is_anonymous = False
    is_active = True

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.pk = claims.sub
        self.username = claims.user or claims.node


class _KeysUnavailable(exceptions.APIException):  # type: ignore[misc]  # without types
    status_code = 503
    default_code = KeysUnavailableError.code


class TailboneAuthentication(BaseAuthentication):  # type: ignore[misc]  # without types
    """Authentication class; ``request.auth`` has the claims."""

    def authenticate(self, request: Request) -> tuple[TailboneUser, Claims] | None:
        """Return who has sent a request; None without a token.

        Raises:
            AuthenticationFailed: the token does not verify.
        """
        try:
            claims = settings.TAILBONE_VERIFIER.verify(bearer_token(authorization_of(request.META)))
        except MissingTokenError:
            return None
        except TokenError as error:
            # Another instance of this class is asked for the header field.
            request.tailbone_challenge = challenge_of(error)
            raise exceptions.AuthenticationFailed(error.message, error.code) from None
        except KeysUnavailableError as error:
            raise _KeysUnavailable(error.message) from None
        return TailboneUser(claims), claims

    def authenticate_header(self, request: Request) -> str:
        """Return the field WWW-Authenticate; without one, the framework would answer 403 instead of 401."""
        return str(getattr(request, "tailbone_challenge", CHALLENGE))


def permission(require: Requirement) -> type[BasePermission]:
    """Return a permission class: ``permission_classes = [permission(require(tags="tag:ci"))]``."""

    class TailbonePermission(BasePermission):  # type: ignore[misc]  # without types
        def has_permission(self, request: Request, view: Any) -> bool:  # noqa: ARG002 -- the framework's
            user = request.user
            return isinstance(user, TailboneUser) and require.permits(user.claims)

    return TailbonePermission
