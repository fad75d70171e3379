"""FastAPI dependency: the claims of the caller, or an answer as RFC 6750 asks."""

from __future__ import annotations

from fastapi import HTTPException, Request
from fastapi.openapi.models import HTTPBearer as BearerModel
from fastapi.security.base import SecurityBase

from tailbone.verify.bearer import ANYBODY, authorize_async, challenge_of, status_of
from tailbone.verify.claims import Claims  # noqa: TC001 -- likewise
from tailbone.verify.errors import VerificationError
from tailbone.verify.require import Requirement  # noqa: TC001 -- likewise
from tailbone.verify.verifier import AsyncVerifier  # noqa: TC001 -- likewise


class TailboneBearer(SecurityBase):
    """A dependency for the caller's claims: ``Annotated[Claims, Depends(TailboneBearer(verifier))]``.

    It is in the OpenAPI document as HTTP bearer authentication.
    """

    def __init__(self, verifier: AsyncVerifier, require: Requirement = ANYBODY) -> None:
        """Create a dependency.

        Args:
            verifier: verifies the tokens.
            require: who is permitted.
        """
        self.model = BearerModel(bearerFormat="JWT")
        self.scheme_name = "tailbone"
        self._verifier = verifier
        self._require = require

    async def __call__(self, request: Request) -> Claims:
        """Return the claims of the caller.

        Raises:
            HTTPException: 401, 403 or 503.
        """
        authorization = request.headers.getlist("authorization")
        try:
            return await authorize_async(authorization, self._verifier, self._require)
        except VerificationError as error:
            challenge = challenge_of(error, self._require)
            raise HTTPException(
                status_of(error), error.message, {"WWW-Authenticate": challenge} if challenge else None
            ) from None
