"""SigningKey: reading, making and using private keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from harness.keys import START
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto import jwk

from tailbone.errors import KeyFileError
from tailbone.keys.signing_key import SigningKey, created_at_of

if TYPE_CHECKING:
    from collections.abc import Callable

KID = f"tb-{START:.0f}"
RSA = SigningKey.generate(KID, algorithm="RS256", size=2048, created_at=START)
EC = SigningKey.generate(KID, algorithm="ES256", size=0, created_at=START)


def members(key: SigningKey) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(key.private_jwk())
    return parsed


def read(content: dict[str, Any]) -> SigningKey:
    return SigningKey.from_jwk(json.dumps(content).encode(), fallback_created_at=7)


async def test_rs256_signs_as_rfc_7518_section_3_3_says() -> None:
    """RSASSA-PKCS1-v1_5 with SHA-256, checked by OpenSSL."""
    signature = await RSA.sign(b"data")
    RSA._private.public_key().verify(signature, b"data", padding.PKCS1v15(), hashes.SHA256())  # type: ignore[call-arg, arg-type]
    assert len(signature) == 256


async def test_es256_signatures_are_64_raw_bytes() -> None:
    """r and s one after the other, 32 bytes each (RFC 7518 section 3.4), whatever their length."""
    for _ in range(300):
        signature = await EC.sign(b"data")
        assert len(signature) == 64
        der = utils.encode_dss_signature(
            int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        )
        EC._private.public_key().verify(der, b"data", ec.ECDSA(hashes.SHA256()))  # type: ignore[call-arg, arg-type]


async def test_a_large_key_signs_off_the_event_loop() -> None:
    """And the signature is as good."""
    large = SigningKey.generate(KID, algorithm="RS256", size=3072, created_at=START)
    signature = await large.sign(b"data")
    large._private.public_key().verify(signature, b"data", padding.PKCS1v15(), hashes.SHA256())  # type: ignore[call-arg, arg-type]
    assert (large.signs_inline, RSA.signs_inline, EC.signs_inline) == (False, True, True)


@pytest.mark.parametrize("key", [RSA, EC])
def test_what_was_written_is_read_back(key: SigningKey) -> None:
    """Kid, time, algorithm, thumbprint."""
    again = SigningKey.from_jwk(key.private_jwk(), fallback_created_at=0)
    assert (again.kid, again.created_at, again.algorithm, again.size, again.thumbprint) == (
        key.kid,
        START,
        key.algorithm,
        key.size,
        key.thumbprint,
    )
    assert again.public_jwk() == key.public_jwk()


@pytest.mark.parametrize("key", [RSA, EC])
def test_the_public_jwk_has_nothing_private(key: SigningKey) -> None:
    """None of the private members of RFC 7518 section 6."""
    assert not key.public_jwk().keys() & {"d", "p", "q", "dp", "dq", "qi", "k", "oth"}
    assert key.thumbprint == jwk.JWK(**key.public_jwk()).thumbprint()


@pytest.mark.parametrize("member", ["n", "e", "d", "p", "q", "dp", "dq", "qi"])
def test_an_rsa_key_with_one_wrong_number_is_refused(member: str) -> None:
    """OpenSSL's own check of it would stop the event loop for 50 to 300 ms; ours finds the same."""
    other = members(SigningKey.generate(KID, algorithm="RS256", size=2048, created_at=START))
    wrong = {**members(RSA), member: "AQAD" if member == "e" else other[member]}
    with pytest.raises(KeyFileError):
        read(wrong)


@pytest.mark.parametrize("member", ["d", "x", "y"])
def test_an_ec_key_with_one_wrong_number_is_refused(member: str) -> None:
    """The point is not on the curve, or not the private number's."""
    other = members(SigningKey.generate(KID, algorithm="ES256", size=0, created_at=START))
    with pytest.raises(KeyFileError):
        read({**members(EC), member: other[member]})


@pytest.mark.parametrize(
    "change",
    [
        {"kty": "oct"},
        {"kty": "future"},
        {"kty": 7},
        {"kid": None},
        {"kid": ""},
        {"kid": 7},
        {"alg": "RS512"},
        {"alg": "none"},
        {"use": "enc"},
        {"d": None},
        {"d": 7},
        {"n": "!!!"},
    ],
)
def test_other_kinds_of_keys_are_refused(change: dict[str, Any]) -> None:
    """With an error of ours, which says nothing of what is in the file."""
    content = {name: value for name, value in {**members(RSA), **change}.items() if value is not None}
    with pytest.raises(KeyFileError) as caught:
        read(content)
    assert members(RSA)["d"] not in caught.value.message


def make_small() -> dict[str, Any]:
    weak = jwk.JWK.generate(kty="RSA", size=1024)
    return {**weak.export_private(as_dict=True), "kid": KID}


def make_p384() -> dict[str, Any]:
    return {**jwk.JWK.generate(kty="EC", crv="P-384").export_private(as_dict=True), "kid": KID}


@pytest.mark.parametrize("make", [make_small, make_p384])
def test_keys_too_weak_or_of_another_curve_are_refused(make: Callable[[], dict[str, Any]]) -> None:
    """RFC 7518 section 3.3 asks for 2048 bits; ES256 is P-256."""
    with pytest.raises(KeyFileError):
        read(make())


def test_a_kid_that_tells_no_time_takes_the_files() -> None:
    """A key put there by hand."""
    assert read({**members(EC), "kid": "by hand"}).created_at == 7


@pytest.mark.parametrize(
    ("kid", "created_at"),
    [
        ("tb-1795518230", 1795518230),
        ("tb-1795518230-0a1f", 1795518230),
        ("tb-1795518230-1234", 1795518230),
        ("a-b-1795518230", 1795518230),
        ("-1795518230", 1795518230),
        ("1795518230-1795518231", 1795518231),
        ("key-2", None),
        ("tb-1795518230-", None),
        ("tb-1795518230-xyzw", None),
        ("", None),
        ("tb-17955182301795518230", None),
        ("tb-１７９５５１８２３０", None),
    ],
)
def test_a_kids_time_is_read_from_the_right(kid: str, created_at: int | None) -> None:
    """A prefix may hold dashes; an odd kid tells no time, and breaks nothing."""
    assert created_at_of(kid) == created_at


@given(st.binary(max_size=200))
def test_any_bytes_are_a_key_or_an_error_of_ours(data: bytes) -> None:
    """No other exception."""
    with pytest.raises(KeyFileError):
        SigningKey.from_jwk(data, fallback_created_at=0)


@given(
    st.dictionaries(
        st.sampled_from(
            ["kty", "kid", "n", "e", "d", "p", "q", "dp", "dq", "qi", "crv", "x", "y", "use", "alg"]
        ),
        st.sampled_from(["RSA", "EC", "OKP", "P-256", "AQAB", "AQ", "", "!", 1, None, [], {}]),
    )
)
def test_any_jwk_is_a_key_or_an_error_of_ours(content: dict[str, Any]) -> None:
    """Whatever is in it."""
    with pytest.raises(KeyFileError):
        read(content)
