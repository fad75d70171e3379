"""WSGI middleware: requests reach the app with the claims of their caller, or not at all."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from tailbone.verify.bearer import ANYBODY, authorize, refusal_of
from tailbone.verify.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from tailbone.verify.require import Requirement
    from tailbone.verify.verifier import Verifier

CLAIMS = "tailbone.claims"
"""The key of the claims in ``environ``."""


class TailboneMiddleware:
    """Middleware for all requests; ``environ["tailbone.claims"]`` has the claims."""

    def __init__(self, app: WSGIApplication, verifier: Verifier, require: Requirement = ANYBODY) -> None:
        """Wrap an app.

        Args:
            app: the WSGI app.
            verifier: verifies the tokens.
            require: who is permitted.
        """
        self._app = app
        self._verifier = verifier
        self._require = require

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Check a request, then call the app."""
        try:
            environ[CLAIMS] = authorize(authorization_of(environ), self._verifier, self._require)
        except VerificationError as error:
            status, fields, body = refusal_of(error, self._require)
            fields["Content-Length"] = str(len(body))
            start_response(f"{status} {HTTPStatus(status).phrase}", list(fields.items()))
            return [body]
        return self._app(environ, start_response)


def authorization_of(environ: WSGIEnvironment) -> list[str]:
    """Return the Authorization fields; servers join several with commas, which no token contains."""
    value = environ.get("HTTP_AUTHORIZATION")
    return [] if value is None else [value]
