"""Why a token does not verify, or is not enough: one class for each reason, with a stable code.

No message contains the token, or text from it.
"""

from __future__ import annotations

from tailbone.errors import TailboneError


class VerificationError(TailboneError):
    """Base class of the failures of a verification."""

    code = "verification_failed"


class TokenError(VerificationError):
    """The token does not verify: the caller needs another one (HTTP status 401)."""

    code = "invalid_token"


class MissingTokenError(TokenError):
    """The request has no bearer token."""

    code = "missing_token"


class MalformedTokenError(TokenError):
    """The token is not a compact JWS with a JSON header and JSON claims (RFC 7515 section 7.1)."""

    code = "malformed_token"


class TokenTooLargeError(TokenError):
    """The token is longer than 16 KiB."""

    code = "token_too_large"


class WrongTokenTypeError(TokenError):
    """The header's ``typ`` is not ``JWT`` (RFC 8725 section 3.11)."""

    code = "wrong_token_type"


class AlgorithmNotAllowedError(TokenError):
    """The header's ``alg`` is not allowed, or is not the algorithm of the key (RFC 8725 section 3.1)."""

    code = "algorithm_not_allowed"


class UnknownTokenKeyError(TokenError):
    """The issuer publishes no key with the token's ``kid``."""

    code = "unknown_kid"


class BadSignatureError(TokenError):
    """The signature is not the issuer's."""

    code = "bad_signature"


class MalformedClaimsError(TokenError):
    """A required claim is missing, or a claim has a wrong type (RFC 7519 section 4.1)."""

    code = "malformed_claims"


class WrongIssuerError(TokenError):
    """The claim ``iss`` names another issuer."""

    code = "wrong_issuer"


class WrongAudienceError(TokenError):
    """The claim ``aud`` names other audiences, or is missing."""

    code = "wrong_audience"


class TokenExpiredError(TokenError):
    """The time of the claim ``exp`` has passed."""

    code = "token_expired"


class TokenNotYetValidError(TokenError):
    """The time of the claim ``nbf`` or ``iat`` has not come."""

    code = "token_not_yet_valid"


class NotPermittedError(VerificationError):
    """The token verifies, but its caller is not among those that are permitted (HTTP status 403)."""

    code = "not_permitted"


class KeysUnavailableError(VerificationError):
    """The issuer's keys cannot be fetched, and no copy is recent enough (HTTP status 503)."""

    code = "keys_unavailable"
