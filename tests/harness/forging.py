"""Tokens that no issuer signs: any header, any claims, any signature."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from jwcrypto.jwk import JWK

from tailbone.base64url import encode
from tailbone.verify.keys import VerifyingKey

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_800_000_000
ISSUER = "https://issuer.example.com"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
HEADER: dict[str, Any] = {"alg": "RS256", "kid": "rsa", "typ": "JWT"}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "user:1",
    "aud": "service",
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 600,
}
JWKS = json.dumps(
    {"keys": [{**JWK.from_pyca(RSA_KEY.public_key()).export_public(as_dict=True), "kid": "rsa"}]}
).encode()
KEYS = {"rsa": VerifyingKey(RSA_KEY.public_key()), "ec": VerifyingKey(EC_KEY.public_key())}


def rs256(signed: bytes) -> bytes:
    """Sign with the RSA key."""
    return RSA_KEY.sign(signed, padding.PKCS1v15(), hashes.SHA256())


def es256(signed: bytes) -> bytes:
    """Sign with the P-256 key."""
    r, s = decode_dss_signature(EC_KEY.sign(signed, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def forge(
    header: dict[str, Any] | bytes = HEADER,
    claims: dict[str, Any] | bytes = CLAIMS,
    sign: Callable[[bytes], bytes] = rs256,
) -> str:
    """Return a token; header and claims as members, or as the bytes themselves."""
    parts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims))
    signed = b".".join(encode(part) for part in parts)
    return (signed + b"." + encode(sign(signed))).decode()
