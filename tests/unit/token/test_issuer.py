"""Policy, claims and signature become a token."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any

import jwt
import pytest

from tailbone.errors import AudienceNotAllowedError, NoSigningKeyError, SharedCallerError
from tailbone.keys.signing_key import Algorithm, SigningKey
from tailbone.keys.view import KeyRing
from tailbone.token.identity import Identity
from tailbone.token.issuer import Issuer
from tailbone.token.policy import Rules, TokenRequest, admit

NOW = 1795518230.5
RULES = Rules(issuer="https://issuer.example", expiry_s=1200, audiences=("sts.example",))
PERSON = Identity(
    node_id="nStable",
    node="laptop.dev.tailnet.test",
    user_id=123,
    login="dev@example.com",
    display_name="Dev",
)
SHARED = Identity(node_id="nGuest", node="guest.other.test", user_id=9, shared=True)


def new_key(kid: str, algorithm: Algorithm = "ES256") -> SigningKey:
    """A real key; ES256 where it does not matter, since it is made at once."""
    return SigningKey.generate(kid, algorithm=algorithm, size=2048, created_at=1795518000)


def new_issuer(key: SigningKey | None) -> Issuer:
    """An issuer whose clock stands still."""
    return Issuer(RULES, lambda: KeyRing(signing=key), clock=lambda: NOW)


def parts(token: str) -> tuple[bytes, bytes, bytes]:
    """The three parts of a JWS, decoded."""
    header, payload, signature = (urlsafe_b64decode(part + "==") for part in token.split("."))
    return header, payload, signature


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_another_library_verifies_the_token(algorithm: Algorithm) -> None:
    """PyJWT, which shares no code with this, verifies the signature and reads the claims."""
    key = new_key("tb-1795518000", algorithm)
    issued = await new_issuer(key).issue(admit(PERSON, RULES), TokenRequest(audience="sts.example", ttl_s=60))
    claims: dict[str, Any] = jwt.decode(
        issued.token,
        jwt.PyJWK(key.public_jwk()),
        audience="sts.example",
        issuer="https://issuer.example",
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )
    assert claims == {
        "iss": "https://issuer.example",
        "sub": "user:123",
        "aud": "sts.example",
        "iat": 1795518225,
        "nbf": 1795518225,
        "exp": 1795518290,
        "jti": issued.jti,
        "user": "dev@example.com",
        "display_name": "Dev",
        "node": "laptop.dev.tailnet.test",
        "node_id": "nStable",
    }


async def test_the_header_says_alg_kid_and_typ() -> None:
    """Three members, and nothing that a verifier might follow (no jku, no x5u)."""
    issued = await new_issuer(new_key("tb-1795518000")).issue(admit(PERSON, RULES), TokenRequest())
    assert parts(issued.token)[0] == b'{"alg":"ES256","kid":"tb-1795518000","typ":"JWT"}'


async def test_the_parts_are_base64url_without_padding() -> None:
    """RFC 7515 section 2: other alphabets and padding are refused by verifiers."""
    issued = await new_issuer(new_key("tb-1795518000")).issue(admit(PERSON, RULES), TokenRequest())
    assert not set(issued.token) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


async def test_what_is_told_about_a_token_is_what_it_says() -> None:
    """The log line is made of these."""
    issued = await new_issuer(new_key("tb-1795518000")).issue(
        admit(PERSON, RULES), TokenRequest(audience="sts.example")
    )
    claims = json.loads(parts(issued.token)[1])
    assert (issued.sub, issued.jti, issued.aud, issued.node, issued.expires_at, issued.kid) == (
        claims["sub"],
        claims["jti"],
        claims["aud"],
        claims["node"],
        claims["exp"],
        "tb-1795518000",
    )


async def test_no_two_tokens_have_one_jti() -> None:
    """128 random bits, as 32 hexadecimal digits."""
    issuer = new_issuer(new_key("tb-1795518000"))
    jtis = {(await issuer.issue(admit(PERSON, RULES), TokenRequest())).jti for _ in range(50)}
    assert len(jtis) == 50
    assert {len(bytes.fromhex(jti)) for jti in jtis} == {16}


async def test_the_ring_is_asked_for_every_token() -> None:
    """A new ring counts at once, its kid in the header too; and so does the old one when it comes back."""
    old, new = new_key("tb-1795518000"), new_key("tb-1795519000")
    ring = KeyRing(signing=old)
    issuer = Issuer(RULES, lambda: ring)
    kids = []
    for key in (old, new, old):
        ring = KeyRing(signing=key)
        issued = await issuer.issue(admit(PERSON, RULES), TokenRequest())
        kids.append(jwt.get_unverified_header(issued.token)["kid"])
        jwt.decode(issued.token, jwt.PyJWK(key.public_jwk()), issuer="https://issuer.example")
    assert kids == ["tb-1795518000", "tb-1795519000", "tb-1795518000"]


async def test_no_token_outlives_what_the_end_of_its_key_is_computed_from() -> None:
    """Until a longer expiry is on disk, tokens live as long as the one that is."""
    key = new_key("k")
    issuer = Issuer(RULES, lambda: KeyRing(signing=key, expiry_s=600.0), clock=lambda: NOW)
    for asked, given in ((None, 600), (900, 600), (60, 60)):
        issued = await issuer.issue(admit(PERSON, RULES), TokenRequest(ttl_s=asked))
        assert issued.expires_at == json.loads(parts(issued.token)[1])["exp"] == int(NOW) + given


async def test_without_a_key_nothing_is_issued() -> None:
    """Start does not wait for a key; callers hear that there is none."""
    with pytest.raises(NoSigningKeyError):
        await new_issuer(None).issue(admit(PERSON, RULES), TokenRequest())


async def test_policy_comes_before_keys() -> None:
    """A caller that may have nothing does not learn whether there is a key."""
    issuer = new_issuer(None)
    with pytest.raises(SharedCallerError):
        issuer.admit(SHARED)
    with pytest.raises(AudienceNotAllowedError):
        await issuer.issue(admit(PERSON, RULES), TokenRequest(audience="other"))


async def test_a_token_shows_in_no_repr() -> None:
    """Whoever holds a token is the caller; reprs end up in logs and tracebacks."""
    issued = await new_issuer(new_key("tb-1795518000")).issue(admit(PERSON, RULES), TokenRequest())
    assert issued.token.split(".")[2] not in repr(issued)
    assert issued.token.split(".")[1] not in repr(issued)
