"""Parse a token, a JWT as a compact JWS (RFC 7515 section 7.1), and check its signature. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET, UnsetType

from tailbone.base64url import decode
from tailbone.verify.errors import (
    AlgorithmNotAllowedError,
    BadSignatureError,
    MalformedTokenError,
    TokenTooLargeError,
    WrongTokenTypeError,
)

if TYPE_CHECKING:
    from tailbone.verify.keys import VerifyingKey

LONGEST_TOKEN: Final = 16 * 1024
"""The longest token, in characters."""

_LONGEST_KID: Final = 512
_LONGEST_CACHED: Final = 1024


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The JOSE header. Members that name or contain a key (jku, jwk, x5u, x5c) are ignored.

    Attributes:
        alg: the algorithm.
        kid: the id of the key.
        typ: the type of the token.
    """

    alg: str
    kid: str
    typ: str = ""
    # Extensions that must be understood (RFC 7515 section 4.1.11); none is.
    crit: msgspec.Raw | UnsetType = UNSET


class Token(msgspec.Struct, frozen=True, gc=False):
    """A token in its parts.

    Attributes:
        header: the header.
        payload: the JSON text of the claims.
        signed: what is signed.
        signature: the signature.
    """

    header: Header
    payload: bytes
    signed: bytes
    signature: bytes


def parse_token(text: str) -> Token:
    """Split and decode a token; no signature is checked.

    Raises:
        TokenTooLargeError: it is longer than 16 KiB.
        MalformedTokenError: it is not a JWT in the compact form.
        WrongTokenTypeError: it is not of type ``JWT``.
    """
    if len(text) > LONGEST_TOKEN:
        raise TokenTooLargeError(f"the token has more than {LONGEST_TOKEN} characters")
    try:
        whole = text.encode("ascii")
        header, payload, signature = whole.split(b".")
        parsed = (_cached_header if len(header) <= _LONGEST_CACHED else _header)(header)
        signed = whole[: -1 - len(signature)]
        return Token(parsed, decode(payload), signed, decode(signature))
    except ValueError as error:  # also those of msgspec, and of the base64url
        raise MalformedTokenError(
            "the token is not a signed JWT in the compact form", detail=str(error)
        ) from None


def check_signature(token: Token, key: VerifyingKey) -> None:
    """Check the signature of a token with the key that its header names.

    Raises:
        AlgorithmNotAllowedError: the header names another algorithm than the key's.
        BadSignatureError: the signature is not this key's.
    """
    if token.header.alg != key.algorithm:
        raise AlgorithmNotAllowedError("the token's algorithm is not the one of the issuer's key")
    if not key.verifies(token.signature, token.signed):
        raise BadSignatureError("the token's signature does not verify")


def _header(text: bytes) -> Header:
    header = _decode(decode(text))
    if header.crit is not UNSET or len(header.kid) > _LONGEST_KID:
        raise ValueError("an extension, or a kid of more than 512 characters")
    if header.typ.upper() != "JWT":
        raise WrongTokenTypeError("the token's type is not JWT")
    return header


_decode = msgspec.json.Decoder(Header).decode
# All tokens of a key have the same header.
_cached_header = lru_cache(maxsize=128)(_header)
