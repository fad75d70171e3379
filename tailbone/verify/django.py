"""Django middleware: ``request.claims`` has the claims of the caller.

The settings have ``TAILBONE_VERIFIER``, a ``Verifier``, and optionally ``TAILBONE_REQUIRE``, by ``require``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpResponse

from tailbone.verify.bearer import ANYBODY, authorize, refusal_of
from tailbone.verify.errors import VerificationError
from tailbone.verify.wsgi import authorization_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest


class TailboneMiddleware:
    """Middleware for all views: ``MIDDLEWARE = ["tailbone.verify.django.TailboneMiddleware", …]``."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._verifier = settings.TAILBONE_VERIFIER
        self._require = getattr(settings, "TAILBONE_REQUIRE", ANYBODY)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Check a request, then call the view."""
        try:
            request.claims = authorize(authorization_of(request.META), self._verifier, self._require)
        except VerificationError as error:
            status, fields, body = refusal_of(error, self._require)
            return HttpResponse(body, status=status, headers=fields)
        return self._get_response(request)
