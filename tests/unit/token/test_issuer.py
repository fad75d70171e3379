"""The issuer turns an admitted request into a signed token."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from harness.settings import issuer_settings

from tailbone.errors import AudienceNotAllowedError, NoSigningKeyError, SharedCallerError
from tailbone.keys.signing_key import SigningKey
from tailbone.keys.view import KeyRing
from tailbone.token.identity import Identity
from tailbone.token.issuer import Issuer
from tailbone.token.policy import TokenRequest, admit

if TYPE_CHECKING:
    from tailbone.algorithms import Algorithm

NOW = 1795518230.5
SETTINGS = issuer_settings(issuer="https://issuer.example", expiry_s=1200, audiences=("sts.example",))
PERSON = Identity(
    node_id="nStable",
    node="laptop.dev.tailnet.test",
    user_id=123,
    login="dev@example.com",
    display_name="Dev",
)
SHARED = Identity(node_id="nGuest", node="guest.other.test", user_id=9, shared=True)


def new_key(kid: str, algorithm: Algorithm = "ES256") -> SigningKey:
    """Generate a real key; ES256 by default, since it takes no time."""
    return SigningKey.generate(kid, algorithm=algorithm, size=2048, created_at=1795518000)


def new_issuer(key: SigningKey | None) -> Issuer:
    """Return an issuer whose clock stands still."""
    return Issuer(SETTINGS, lambda: KeyRing(signing=key), clock=lambda: NOW)


def parts(token: str) -> tuple[bytes, bytes, bytes]:
    """Return the three decoded parts of a JWS."""
    header, payload, signature = (urlsafe_b64decode(part + "==") for part in token.split("."))
    return header, payload, signature


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_another_library_verifies_the_token(algorithm: Algorithm) -> None:
    """PyJWT, an independent implementation, verifies the signature and decodes the claims."""
    key = new_key("tb-1795518000", algorithm)
    request = TokenRequest(audience="sts.example", ttl_s=60)
    issued = await new_issuer(key).issue(admit(PERSON, SETTINGS), request)
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


async def test_the_header_has_only_alg_kid_and_typ() -> None:
    """It has no link that a verifier might follow, such as jku or x5u."""
    issued = await new_issuer(new_key("tb-1795518000")).issue(admit(PERSON, SETTINGS), TokenRequest())
    assert parts(issued.token)[0] == b'{"alg":"ES256","kid":"tb-1795518000","typ":"JWT"}'


async def test_the_parts_are_base64url_without_padding() -> None:
    """Verifiers refuse other alphabets and padding (RFC 7515 section 2)."""
    issued = await new_issuer(new_key("tb-1795518000")).issue(admit(PERSON, SETTINGS), TokenRequest())
    assert not set(issued.token) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


async def test_the_facts_about_a_token_match_its_claims() -> None:
    """The log line contains these facts."""
    issued = await new_issuer(new_key("tb-1795518000")).issue(
        admit(PERSON, SETTINGS), TokenRequest(audience="sts.example")
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


async def test_each_token_has_its_own_jti() -> None:
    """A jti is 128 random bits, as 32 hexadecimal digits."""
    issuer = new_issuer(new_key("tb-1795518000"))
    jtis = {(await issuer.issue(admit(PERSON, SETTINGS), TokenRequest())).jti for _ in range(50)}
    assert len(jtis) == 50
    assert {len(bytes.fromhex(jti)) for jti in jtis} == {16}


async def test_each_token_is_signed_with_the_current_ring() -> None:
    """A new key signs the next token, with its kid in the header; so does an old key that comes back."""
    old, new = new_key("tb-1795518000"), new_key("tb-1795519000")
    ring = KeyRing(signing=old)
    issuer = Issuer(SETTINGS, lambda: ring)
    kids = []
    for key in (old, new, old):
        ring = KeyRing(signing=key)
        issued = await issuer.issue(admit(PERSON, SETTINGS), TokenRequest())
        kids.append(jwt.get_unverified_header(issued.token)["kid"])
        jwt.decode(issued.token, jwt.PyJWK(key.public_jwk()), issuer="https://issuer.example")
    assert kids == ["tb-1795518000", "tb-1795519000", "tb-1795518000"]


async def test_the_lifetime_is_capped_by_the_expiry_on_disk() -> None:
    """A key's end is computed from the expiry on disk, so a longer one counts only once it is written."""
    key = new_key("k")
    issuer = Issuer(SETTINGS, lambda: KeyRing(signing=key, expiry_s=600.0), clock=lambda: NOW)
    for requested, granted in ((None, 600), (900, 600), (60, 60)):
        issued = await issuer.issue(admit(PERSON, SETTINGS), TokenRequest(ttl_s=requested))
        assert issued.expires_at == json.loads(parts(issued.token)[1])["exp"] == int(NOW) + granted


async def test_a_missing_key_is_an_error() -> None:
    """The server starts without waiting for a key; until there is one, callers get an error."""
    with pytest.raises(NoSigningKeyError):
        await new_issuer(None).issue(admit(PERSON, SETTINGS), TokenRequest())


async def test_policy_comes_before_keys() -> None:
    """A caller that is refused does not learn whether there is a key."""
    issuer = new_issuer(None)
    with pytest.raises(SharedCallerError):
        issuer.admit(SHARED)
    with pytest.raises(AudienceNotAllowedError):
        await issuer.issue(admit(PERSON, SETTINGS), TokenRequest(audience="other"))


async def test_the_repr_omits_the_token() -> None:
    """The holder of a token can act as the caller, and reprs end up in logs and tracebacks."""
    issued = await new_issuer(new_key("tb-1795518000")).issue(admit(PERSON, SETTINGS), TokenRequest())
    assert issued.token.split(".")[2] not in repr(issued)
    assert issued.token.split(".")[1] not in repr(issued)
