"""Verify tailbone's tokens in a Python service.

    verifier = Verifier(issuer="https://issuer.example.com", audience="my-service")
    claims = verifier.verify(token)

Modules beside this one connect it to frameworks: ``asgi``, ``starlette``, ``fastapi``, ``sanic``, ``wsgi``,
``django``, ``rest_framework`` and ``grpc``.
"""

from tailbone.verify.claims import Claims
from tailbone.verify.errors import (
    AlgorithmNotAllowedError,
    BadSignatureError,
    KeysUnavailableError,
    MalformedClaimsError,
    MalformedTokenError,
    MissingTokenError,
    NotPermittedError,
    TokenError,
    TokenExpiredError,
    TokenNotYetValidError,
    TokenTooLargeError,
    UnknownTokenKeyError,
    VerificationError,
    WrongAudienceError,
    WrongIssuerError,
    WrongTokenTypeError,
)
from tailbone.verify.require import Requirement, require
from tailbone.verify.verifier import AsyncVerifier, Verifier

__all__ = [
    "AlgorithmNotAllowedError",
    "AsyncVerifier",
    "BadSignatureError",
    "Claims",
    "KeysUnavailableError",
    "MalformedClaimsError",
    "MalformedTokenError",
    "MissingTokenError",
    "NotPermittedError",
    "Requirement",
    "TokenError",
    "TokenExpiredError",
    "TokenNotYetValidError",
    "TokenTooLargeError",
    "UnknownTokenKeyError",
    "VerificationError",
    "Verifier",
    "WrongAudienceError",
    "WrongIssuerError",
    "WrongTokenTypeError",
    "require",
]
