"""Keys of a JWKS."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from harness.forging import EC_KEY, RSA_KEY, es256, rs256
from jwcrypto.jwk import JWK

from tailbone.verify.errors import KeysUnavailableError
from tailbone.verify.keys import parse_jwks


def jwk(private: Any, **members: Any) -> dict[str, Any]:
    public = JWK.from_pyca(private.public_key()).export_public(as_dict=True)
    return {**public, "kid": "k", **members}


def parsed(*keys: Any) -> dict[str, str]:
    """Return the algorithm of each key, by its kid."""
    found = parse_jwks(json.dumps({"keys": keys}).encode())
    return {kid: key.algorithm for kid, key in found.items()}


def test_both_kinds_verify() -> None:
    """An RSA key verifies RS256, a P-256 key ES256."""
    text = json.dumps({"keys": [jwk(RSA_KEY, kid="a"), jwk(EC_KEY, kid="b")]}).encode()
    keys = parse_jwks(text)
    assert keys["a"].verifies(rs256(b"x"), b"x")
    assert keys["b"].verifies(es256(b"x"), b"x")
    assert not keys["a"].verifies(rs256(b"x"), b"y")


GOOD = jwk(RSA_KEY, kid="good")


@pytest.mark.parametrize(
    "other",
    [
        {"kty": "oct", "k": "AAAA", "kid": "k"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "k"},
        {"kty": "unknown", "kid": "k"},
        {"kid": "k"},
        {},
        jwk(ec.generate_private_key(ec.SECP384R1())),
        jwk(rsa.generate_private_key(65537, 1024)),
        jwk(RSA_KEY, use="enc"),
        jwk(RSA_KEY, alg="RS512"),
        jwk(RSA_KEY, alg="HS256"),
        jwk(RSA_KEY, kid=7),
        jwk(RSA_KEY, n=jwk(RSA_KEY)["n"] + "=="),
        jwk(RSA_KEY, n=7),
        jwk(RSA_KEY, e="AA"),
        jwk(RSA_KEY, e="//79"),
        jwk(EC_KEY, x="AAAA"),
        jwk(EC_KEY, y=None),
    ],
)
def test_a_key_of_another_kind_is_skipped(other: dict[str, Any]) -> None:
    """It spoils no other key of the set."""
    assert parsed(other, GOOD) == {"good": "RS256"}


def test_the_first_key_of_a_kid_counts() -> None:
    """As in most libraries."""
    assert parsed(jwk(EC_KEY), jwk(RSA_KEY)) == {"k": "ES256"}


@pytest.mark.parametrize("text", [b"", b"[]", b'{"keys":1}', b'{"keys":[1]}', b"{}", b"\xff", b"<xml/>"])
def test_another_document_is_an_error(text: bytes) -> None:
    """An error page does not count as a set without keys."""
    with pytest.raises(KeysUnavailableError):
        parse_jwks(text)
