"""The issuer's public keys: a JWKS, parsed into keys that verify. Pure."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tailbone.algorithms import P256_BYTES, RSA_BITS, Algorithm
from tailbone.base64url import decode
from tailbone.verify.errors import KeysUnavailableError

_LARGEST_EXPONENT: Final = 2**32
_MOST_KEYS: Final = 100
_SHA256: Final = hashes.SHA256()
_PKCS1: Final = padding.PKCS1v15()
_ECDSA: Final = ec.ECDSA(_SHA256)

Keys: TypeAlias = "dict[str, VerifyingKey]"
"""Keys by their kid."""


class VerifyingKey:
    """A public key, and the one algorithm that it verifies.

    Attributes:
        algorithm: the JWS algorithm (RFC 7518 section 3.1).
    """

    __slots__ = ("_ec", "_rsa", "algorithm")

    def __init__(self, public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> None:
        # Such a check is slow, since they are abstract classes.
        self._rsa = public if isinstance(public, rsa.RSAPublicKey) else None
        self._ec = public if isinstance(public, ec.EllipticCurvePublicKey) else None
        self.algorithm: Algorithm = "ES256" if self._rsa is None else "RS256"

    def verifies(self, signature: bytes, signed: bytes) -> bool:
        """Whether ``signature`` is this key's, as a JWS signature (RFC 7518 sections 3.3 and 3.4)."""
        try:
            if self._rsa is not None:
                self._rsa.verify(signature, signed, _PKCS1, _SHA256)
            elif self._ec is not None and len(signature) == 2 * P256_BYTES:
                r, s = signature[:P256_BYTES], signature[P256_BYTES:]
                encoded = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
                self._ec.verify(encoded, signed, _ECDSA)
            else:
                return False
        except InvalidSignature:
            return False
        return True


def parse_jwks(text: bytes) -> Keys:
    """Return the keys of a JWKS (RFC 7517 section 5) that can verify tokens.

    Keys of other kinds and uses are skipped, so that one of them does not spoil the whole set. If two keys
    have one kid, the first is used.

    Raises:
        KeysUnavailableError: the text is not a JWKS.
    """
    try:
        entries = msgspec.json.decode(text, type=_Set).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise KeysUnavailableError("the issuer's JWKS is malformed", detail=str(error)) from None
    keys: Keys = {}
    for members in entries[:_MOST_KEYS]:
        kid = members.get("kid")
        if not isinstance(kid, str) or kid in keys or members.get("use", "sig") != "sig":
            continue
        key = _parse(members)
        if key is not None and members.get("alg", key.algorithm) == key.algorithm:
            keys[kid] = key
    return keys


def _parse(members: dict[str, Any]) -> VerifyingKey | None:
    """Return the key of a JWK; None if it is of another kind, or malformed."""
    try:
        if members.get("kty") == "RSA":
            modulus, exponent = _number(members["n"]), _number(members["e"])
            if modulus.bit_length() not in RSA_BITS or exponent >= _LARGEST_EXPONENT:
                return None
            return VerifyingKey(rsa.RSAPublicNumbers(exponent, modulus).public_key())
        if members.get("kty") == "EC" and members.get("crv") == "P-256":
            x, y = _number(members["x"]), _number(members["y"])
            return VerifyingKey(ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key())
    except (KeyError, TypeError, ValueError):
        return None
    return None


def _number(text: Any) -> int:
    if not isinstance(text, str):
        raise TypeError
    return int.from_bytes(decode(text.encode("ascii")), "big")


class _Set(msgspec.Struct):
    keys: list[dict[str, Any]]
