"""Parsing tokens, and checking signatures: every tampered form is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from harness.forging import CLAIMS, EC_KEY, HEADER, KEYS, RSA_KEY, es256, forge, rs256
from hypothesis import given, settings
from hypothesis import strategies as st

from tailbone.verify.errors import (
    AlgorithmNotAllowedError,
    BadSignatureError,
    MalformedTokenError,
    TokenError,
    TokenTooLargeError,
    WrongTokenTypeError,
)
from tailbone.verify.token import LONGEST_TOKEN, check_signature, parse_token

if TYPE_CHECKING:
    from collections.abc import Callable

GOOD = forge()
GOOD_ES256 = forge({"alg": "ES256", "kid": "ec", "typ": "JWT"}, sign=es256)


def check(text: str) -> None:
    """Parse a token, and check its signature with the key that it names."""
    token = parse_token(text)
    check_signature(token, KEYS[token.header.kid])


@pytest.mark.parametrize("text", [GOOD, GOOD_ES256, forge({**HEADER, "typ": "jwt"})])
def test_a_good_token_passes(text: str) -> None:
    """Both algorithms verify; the type's case does not matter (RFC 7519 section 5.1)."""
    check(text)


def public_pem() -> bytes:
    return RSA_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def hs256(signed: bytes) -> bytes:
    return hmac.digest(public_pem(), signed, hashlib.sha256)


def der_es256(signed: bytes) -> bytes:
    return EC_KEY.sign(signed, ec.ECDSA(hashes.SHA256()))


def pss(signed: bytes) -> bytes:
    return RSA_KEY.sign(signed, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


ES = {"alg": "ES256", "kid": "ec", "typ": "JWT"}
JWK = {"kty": "oct", "k": "AAAA"}


@pytest.mark.parametrize(
    ("header", "sign", "error"),
    [
        ({**HEADER, "alg": "none"}, lambda _: b"", AlgorithmNotAllowedError),
        ({**HEADER, "alg": "None"}, rs256, AlgorithmNotAllowedError),
        ({**HEADER, "alg": "HS256"}, hs256, AlgorithmNotAllowedError),
        ({**HEADER, "alg": "PS256"}, pss, AlgorithmNotAllowedError),
        ({**HEADER, "alg": "ES256"}, es256, AlgorithmNotAllowedError),
        ({**HEADER, "alg": "RS512"}, rs256, AlgorithmNotAllowedError),
        ({**HEADER, "alg": "rs256"}, rs256, AlgorithmNotAllowedError),
        ({**ES, "alg": "RS256"}, rs256, AlgorithmNotAllowedError),
        (HEADER, hs256, BadSignatureError),
        (HEADER, pss, BadSignatureError),
        (HEADER, lambda _: b"", BadSignatureError),
        (HEADER, lambda _: bytes(256), BadSignatureError),
        (HEADER, lambda signed: rs256(signed)[:-1], BadSignatureError),
        (HEADER, lambda signed: rs256(signed) + b"\0", BadSignatureError),
        (HEADER, lambda signed: b"\0" + rs256(signed), BadSignatureError),
        (HEADER, lambda signed: rs256(signed + b" "), BadSignatureError),
        (ES, lambda _: bytes(64), BadSignatureError),
        (ES, der_es256, BadSignatureError),
        (ES, lambda signed: es256(signed)[:63], BadSignatureError),
        (ES, lambda signed: bytes(32) + es256(signed)[32:], BadSignatureError),
        (ES, lambda _: b"\xff" * 64, BadSignatureError),
        ({**HEADER, "jwk": JWK}, hs256, BadSignatureError),
        ({**HEADER, "typ": "at+jwt"}, rs256, WrongTokenTypeError),
        ({**HEADER, "typ": ""}, rs256, WrongTokenTypeError),
        ({"alg": "RS256", "kid": "rsa"}, rs256, WrongTokenTypeError),
        ({**HEADER, "typ": 1}, rs256, MalformedTokenError),
        ({**HEADER, "kid": 1}, rs256, MalformedTokenError),
        ({**HEADER, "kid": None}, rs256, MalformedTokenError),
        ({**HEADER, "kid": "x" * 513}, rs256, MalformedTokenError),
        ({**HEADER, "alg": ["RS256"]}, rs256, MalformedTokenError),
        ({"alg": "RS256", "typ": "JWT"}, rs256, MalformedTokenError),
        ({"kid": "rsa", "typ": "JWT"}, rs256, MalformedTokenError),
        ({**HEADER, "crit": ["exp"]}, rs256, MalformedTokenError),
        ({**HEADER, "crit": None}, rs256, MalformedTokenError),
        ({**HEADER, "b64": False, "crit": ["b64"]}, rs256, MalformedTokenError),
        (b"[]", rs256, MalformedTokenError),
        (b'{"alg":"RS256"', rs256, MalformedTokenError),
        (b'{"alg":"RS256","kid":"\xff","typ":"JWT"}', rs256, MalformedTokenError),
        (b"[" * 5000, rs256, MalformedTokenError),
        (b"", rs256, MalformedTokenError),
    ],
)
def test_a_tampered_header_or_signature_is_refused(
    header: dict[str, Any] | bytes, sign: Callable[[bytes], bytes], error: type[TokenError]
) -> None:
    """Other algorithms than the key's, other signatures, and headers of another form fail."""
    with pytest.raises(TokenError) as caught:
        check(forge(header, sign=sign))
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "a.b",
        GOOD.rpartition(".")[0],
        f"{GOOD}.",
        f"{GOOD}.e30",
        f"{GOOD}==",
        f" {GOOD}",
        f"{GOOD}\n",
        f"Bearer {GOOD}",
        GOOD.replace(".", "=.", 1),
        GOOD.replace("e", "é", 1),
        GOOD.replace("e", "\ud800", 1),
        '{"payload":"","signatures":[]}',
        base64.b64encode(GOOD.encode()).decode(),
    ],
)
def test_a_text_of_another_form_is_refused(text: str) -> None:
    """Two, four and five parts, padding, white space, and the JSON form are not accepted."""
    with pytest.raises(MalformedTokenError):
        check(text)


def test_a_long_token_is_refused() -> None:
    """Nothing of it is decoded."""
    with pytest.raises(TokenTooLargeError):
        parse_token("a" * (LONGEST_TOKEN + 1))


@settings(max_examples=400)
@given(st.data())
def test_every_changed_character_is_noticed(data: st.DataObject) -> None:
    """No token but the signed one verifies: encodings have no second spelling."""
    text = data.draw(st.sampled_from([GOOD, GOOD_ES256]))
    place = data.draw(st.integers(0, len(text) - 1))
    changed = data.draw(st.characters(max_codepoint=127).filter(lambda char: char != text[place]))
    with pytest.raises((TokenError, KeyError)):
        check(text[:place] + changed + text[place + 1 :])


@given(st.one_of(st.text(), st.binary().map(lambda data: forge(HEADER, data)), st.binary().map(forge)))
def test_any_text_passes_or_is_refused_with_a_reason(text: str) -> None:
    """Whatever arrives, nothing but a TokenError is raised."""
    try:
        token = parse_token(text)
    except TokenError:
        return
    assert text.encode().startswith(token.signed)


def test_the_claims_are_bytes_as_they_were_signed() -> None:
    """Parsing leaves the claims to the check after the signature's."""
    token = parse_token(forge(claims=b"not JSON"))
    assert (token.payload, token.header.kid) == (b"not JSON", "rsa")
    assert CLAIMS["iss"].encode() in parse_token(GOOD).payload
