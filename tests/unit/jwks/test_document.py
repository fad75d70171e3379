"""The JWKS document: parse, merge, remove, render."""

from __future__ import annotations

import json
import re
import time
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto import jwk

from tailbone.errors import ForeignDocumentError, KeyStateError
from tailbone.jwks.document import Document
from tailbone.keys.signing_key import SigningKey

EC = SigningKey.generate("tb-1795518230", algorithm="ES256", size=0, created_at=1795518230)
OTHER = SigningKey.generate("tb-1795518231", algorithm="ES256", size=0, created_at=1795518231)
RSA: dict[str, Any] = json.loads(jwk.JWK.generate(kty="RSA", size=2048, kid="rsa").export_public())

ED25519: dict[str, Any] = json.loads(jwk.JWK.generate(kty="OKP", crv="Ed25519", kid="k").export_public())


def of(*keys: dict[str, Any], **members: Any) -> Document:
    return Document.parse(json.dumps({"keys": list(keys), **members}).encode())


def content(document: Document) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(document.render())
    return parsed


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
jwks = st.dictionaries(
    st.text() | st.sampled_from(["kty", "kid", "n", "x", "crv", "alg", "use"]), json_values, max_size=5
)


@given(
    st.lists(jwks, max_size=5), st.dictionaries(st.text().filter(lambda name: name != "keys"), json_values)
)
def test_whatever_else_is_in_it_survives_adding_and_removing_a_key(
    keys: list[dict[str, Any]], members: dict[str, Any]
) -> None:
    """Unknown members, foreign keys, odd kids; in their order."""
    document = of(*keys, **members)
    changed = document.with_key(EC.public_jwk(), EC.thumbprint)
    assert content(changed) == {**members, "keys": [*keys, EC.public_jwk()]}
    assert changed.without(EC.kid, EC.thumbprint) == document
    assert Document.parse(changed.render()) == changed
    assert isinstance(document.warnings(), list)


@pytest.mark.parametrize(
    "number", ["0.1234567890123456789012345", "1.10", "-0.0", "123456789012345678901234567890", "1E+999"]
)
def test_numbers_survive_to_the_last_digit(number: str) -> None:
    """Also those that no machine number holds."""
    document = Document.parse(f'{{"keys": [{{"kid": "other", "weight": {number}}}], "x": {number}}}'.encode())
    changed = document.with_key(EC.public_jwk(), EC.thumbprint).without(EC.kid)
    assert re.findall(rb'"(?:weight|x)": (.*?),?\n', changed.render()) == [number.encode()] * 2


@given(st.binary(max_size=300))
def test_any_bytes_are_a_document_or_an_error_of_ours(data: bytes) -> None:
    """No other exception."""
    with pytest.raises(ForeignDocumentError):
        Document.parse(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b'{"keys": null}',
        b'{"keys": ["x"]}',
        b'{"keys": [}',
        b'{"keys": [{"kid": "a", "kid": "b"}]}',
        b'{"keys": [{"x": NaN}]}',
        b'{"keys": [], "x": 1e99999999999999999999}',
        b'{"keys": [{"kid": "a\\ud800", "kty": "RSA", "n": "AQAB", "e": "AQAB"}]}',
        b'\xef\xbb\xbf{"keys": []}',
        b"[" * 100_000,
        b'{"keys": [], "pad": "' + b"x" * 1_100_000 + b'"}',
    ],
)
def test_what_could_be_read_in_two_ways_or_not_at_all_is_foreign(data: bytes) -> None:
    """The error says that it is left as it is, and what to do."""
    with pytest.raises(ForeignDocumentError, match="it is left as it is"):
        Document.parse(data)


def test_kid_and_thumbprint_are_compared_together() -> None:
    """The same kid is not the same key."""
    document = of(EC.public_jwk())
    assert document.has(EC.kid, EC.thumbprint)
    assert not document.has(EC.kid, OTHER.thumbprint)
    assert not document.has(OTHER.kid, EC.thumbprint)
    assert document.without(EC.kid, OTHER.thumbprint) == document
    assert document.without(EC.kid) == of()


def test_a_second_key_under_a_kid_is_never_added() -> None:
    """Most verifiers look at the first only."""
    with pytest.raises(KeyStateError, match="another key under the kid"):
        of(EC.public_jwk()).with_key({**OTHER.public_jwk(), "kid": EC.kid}, OTHER.thumbprint)


def test_an_entry_that_says_too_little_is_completed_and_keeps_what_else_it_says() -> None:
    """The Go program writes no ``use``."""
    sparse = {name: value for name, value in EC.public_jwk().items() if name not in ("use", "alg")}
    document = of({**sparse, "x5t": "mine"})
    assert document.lacks_members(EC.kid, EC.thumbprint, EC.public_jwk())
    changed = document.with_key(EC.public_jwk(), EC.thumbprint)
    assert content(changed)["keys"] == [{**EC.public_jwk(), "x5t": "mine"}]
    assert not changed.lacks_members(EC.kid, EC.thumbprint, EC.public_jwk())


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ({"kty": "future", "kid": "k"}, "is of a kind that makes some verifiers refuse the whole set"),
        ({"kty": "OKP", "crv": "X25519", "x": "AA", "kid": "k"}, "makes some verifiers refuse the whole set"),
        ({"kty": "OKP", "crv": "Ed448", "x": "AA", "kid": "k"}, "makes some verifiers refuse the whole set"),
        ({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA", "kid": "k"}, "refuse the whole set"),
        ({"kid": "k"}, "makes some verifiers refuse the whole set"),
        ({**RSA, "kid": 7}, "has no kid"),
        ({**RSA, "n": RSA["n"] + "=="}, "is written with padding"),
        ({**RSA, "n": "!!!"}, "refuse the whole set: its n is not base64url"),
        ({**RSA, "n": RSA["n"].replace(RSA["n"][5], "+", 1)}, "its n is not base64url"),
        ({**RSA, "e": None}, "its e is not base64url"),
        ({**RSA, "x5t": 5}, "its x5t is not text"),
        ({**RSA, "x5c": "MIIB"}, "its x5c is not a list of certificates"),
        ({**RSA, "x5c": ["MIIB"]}, "its x5c is not a list of certificates"),
        ({"kty": "RSA", "kid": "k", "n": "AQAB"}, "its e is not base64url"),
        ({**RSA, "n": "AQ"}, "it is not a valid public key"),
        ({**RSA, "use": 7}, "its use is not text"),
        ({**EC.public_jwk(), "x": "AQ"}, "its x is not 32 bytes long"),
        ({**EC.public_jwk(), "x": EC.public_jwk()["y"]}, "it is not a valid public key"),
        ({**EC.public_jwk(), "y": EC.public_jwk()["y"] + "="}, "is written with padding"),
        ({**RSA, "d": "AQ"}, "shows its PRIVATE half to everybody"),
    ],
)
def test_keys_that_verifiers_stumble_over_are_warned_about(key: dict[str, Any], says: str) -> None:
    """They stay, since they are not ours."""
    (warning,) = of(key).warnings()
    assert says in warning


@pytest.mark.parametrize("key", [RSA, EC.public_jwk(), ED25519], ids=["RSA", "EC", "OKP"])
@pytest.mark.parametrize("value", [None, True, 7, 1.5, "", [], {}, ["P-256"]], ids=str)
def test_a_member_of_any_type_is_at_most_a_warning(key: dict[str, Any], value: object) -> None:
    """Another writer of the bucket cannot stop this one."""
    for name in (*key, "alg", "crv", "x5c"):
        assert len(of({**key, name: value}).warnings()) <= 1


def test_ten_warnings_are_given_and_the_rest_is_counted() -> None:
    """One log line each: a document of somebody else's cannot fill the disk."""
    warnings = of(*({} for _ in range(1000))).warnings()
    assert len(warnings) == 11
    assert warnings[0].startswith("the JWKS holds 1000 keys")
    assert warnings[-1] == "and 991 more problems of keys of the JWKS"


def test_a_thousand_keys_are_read_and_no_more() -> None:
    """Each costs a thumbprint."""
    assert len(of(*({} for _ in range(1000))).keys) == 1000
    with pytest.raises(ForeignDocumentError, match="holds more than 1000 keys; it is left as it is"):
        of(*({} for _ in range(1001)))


def test_the_time_for_a_document_grows_with_its_length() -> None:
    """Eight times the keys take nowhere near 64 times as long; compared, since machines differ."""

    def cost(count: int) -> float:
        document = Document({"keys": [{**ED25519, "kid": f"k{number}"} for number in range(count)]})
        began = time.process_time()
        document.warnings()
        return time.process_time() - began

    assert min(cost(8000) for _ in range(2)) < 24 * min(cost(1000) for _ in range(3))


def test_two_keys_under_one_kid_are_warned_about() -> None:
    """Six of eleven libraries look at the first only."""
    (warning,) = of(RSA, {**OTHER.public_jwk(), "kid": "rsa"}).warnings()
    assert "comes after another of that kid" in warning


def chain() -> list[str]:
    """Return a certificate as ``x5c`` has it."""
    key, name, at = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime(2026, 11, 1, tzinfo=UTC)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, at, at).sign(key, SHA256())
    return [b64encode(certificate.public_bytes(Encoding.DER)).decode()]


@pytest.mark.parametrize("key", [RSA, EC.public_jwk(), ED25519, {**RSA, "x5c": chain()}])
def test_keys_that_all_verifiers_can_live_with_are_not_warned_about(key: dict[str, Any]) -> None:
    """RSA, the NIST curves, Ed25519."""
    assert of(key).warnings() == []


@pytest.mark.parametrize(("count", "warned"), [(9, False), (10, True)])
def test_ten_keys_are_many(count: int, warned: bool) -> None:
    """From there on some verifiers refuse the set."""
    document = of(*({**RSA, "kid": f"k{number}"} for number in range(count)))
    assert bool(document.warnings()) == warned


def test_a_hundred_keys_are_the_most() -> None:
    """An entry that is there can still be completed."""
    full = of(EC.public_jwk(), *({**RSA, "kid": f"k{number}"} for number in range(99)))
    assert full.with_key(EC.public_jwk(), EC.thumbprint) == full
    with pytest.raises(KeyStateError, match="at most 100"):
        full.with_key(OTHER.public_jwk(), OTHER.thumbprint)
