"""Verifier and AsyncVerifier, with an issuer on loopback."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from harness.forging import CLAIMS, HEADER, JWKS, RSA_KEY, forge
from harness.web import Page, WebServer
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import RSAKey
from jwcrypto.jwk import JWK
from jwcrypto.jwt import JWT

from tailbone.errors import ConfigError
from tailbone.testing import FakeIssuer
from tailbone.verify import (
    AsyncVerifier,
    Claims,
    KeysUnavailableError,
    TokenError,
    UnknownTokenKeyError,
    Verifier,
    errors,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unit.verify.conftest import Clock

    from tailbone.algorithms import Algorithm


@pytest.fixture(params=["sync", "async"])
def verify(request: pytest.FixtureRequest, issuer: FakeIssuer, clock: Clock) -> Callable[[str], Claims]:
    """The method of both verifiers, as a function."""
    if request.param == "sync":
        return Verifier(issuer.url, "service", clock=clock, monotonic=clock).verify
    verifier = AsyncVerifier(issuer.url, "service", clock=clock, monotonic=clock)
    return lambda token: asyncio.run(verifier.verify(token))


def test_a_persons_token(verify: Callable[[str], Claims], issuer: FakeIssuer) -> None:
    """It has the login name, and the claims of the policy."""
    claims = verify(issuer.token(audience="service", groups=["ops"], scope="read", team="infra"))
    assert (claims.sub, claims.user, claims.tags) == ("user:1", "dev@example.com", ())
    assert (claims.groups, claims.scope, claims.extra) == (("ops",), "read", {"team": "infra"})


def test_a_tagged_nodes_token(verify: Callable[[str], Claims], issuer: FakeIssuer) -> None:
    """It has tags and no user."""
    claims = verify(issuer.token(audience="service", as_="tag:ci"))
    assert (claims.sub, claims.user, claims.tags) == ("node:nFaketag-ci", "", ("tag:ci",))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_both_algorithms_verify(algorithm: Algorithm) -> None:
    """Keys of both kinds are discovered."""
    with FakeIssuer(algorithm=algorithm) as issuer:
        assert Verifier(issuer.url, "service").verify(issuer.token(audience="service")).user


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"audience": "other"}, "wrong_audience"),
        ({"audience": None}, "wrong_audience"),
        ({"expired": True}, "token_expired"),
        ({"wrong_key": True}, "bad_signature"),
    ],
)
def test_bad_tokens_are_refused(
    verify: Callable[[str], Claims], issuer: FakeIssuer, arguments: dict[str, Any], code: str
) -> None:
    """Each with its own code."""
    with pytest.raises(TokenError) as caught:
        verify(issuer.token(**{"audience": "service", **arguments}))
    assert caught.value.code == code


def test_another_issuer_with_the_same_keys_is_refused(issuer: FakeIssuer) -> None:
    """The claim ``iss`` must match, even if the signature does."""
    verifier = Verifier("https://other.example", "service", jwks_url=issuer.jwks_url)
    with pytest.raises(errors.WrongIssuerError):
        verifier.verify(issuer.token(audience="service"))


def test_a_rotation_while_it_runs(verify: Callable[[str], Claims], issuer: FakeIssuer, clock: Clock) -> None:
    """The next key verifies at its first token, and the old one until it is removed."""
    old = issuer.token(audience="service")
    verify(old)
    clock.now += 31
    issuer.rotate()
    verify(issuer.token(audience="service"))
    verify(old)
    clock.now += 31
    issuer.rotate(remove_old=True)
    verify(issuer.token(audience="service"))
    with pytest.raises(UnknownTokenKeyError):
        verify(old)


def test_an_unreachable_issuer(clock: Clock) -> None:
    """The failure is not the token's; keys that were fetched outlast the issuer."""
    with FakeIssuer(clock=clock) as issuer:
        verifier, late = (Verifier(issuer.url, "s", clock=clock, monotonic=clock) for _ in range(2))
        token = issuer.token(audience="s", ttl_s=86_400)
        verifier.verify(token)
    clock.now += 3600
    verifier.verify(token)
    with pytest.raises(KeysUnavailableError):
        late.verify(token)


def test_an_algorithm_can_be_excluded(issuer: FakeIssuer) -> None:
    """Before anything is fetched."""
    verifier = Verifier(issuer.url, "service", algorithms=["ES256"])
    with pytest.raises(errors.AlgorithmNotAllowedError):
        verifier.verify(issuer.token(audience="service"))
    assert verifier._keys._cached.keys == {}


def test_any_audience_must_be_asked_for(issuer: FakeIssuer) -> None:
    """It then accepts tokens for others, and for nobody."""
    verifier = Verifier(issuer.url, any_audience=True)
    assert verifier.verify(issuer.token(audience="other")).aud == "other"
    assert verifier.verify(issuer.token()).aud == ()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"audience": ""},
        {"audience": []},
        {"audience": ["a", ""]},
        {"audience": "a", "any_audience": True},
        {"audience": "a", "issuer": "tailbone"},
        {"audience": "a", "issuer": "http://issuer.example.com"},
        {"audience": "a", "jwks_url": "http://issuer.example.com/jwks"},
        {"audience": "a", "algorithms": ["HS256"]},
        {"audience": "a", "algorithms": []},
    ],
)
def test_unsafe_arguments_are_refused(arguments: dict[str, Any]) -> None:
    """No audience, plain HTTP and other algorithms fail when the service starts."""
    with pytest.raises(ConfigError):
        Verifier(**{"issuer": "https://issuer.example.com", **arguments})


async def test_tasks_share_one_fetch() -> None:
    """A cancelled task cancels no other's fetch."""
    answers = threading.Event()
    with WebServer() as web:
        web.pages["/jwks"] = Page(JWKS, waits=answers)
        now = int(time.time())
        token = forge(claims={**CLAIMS, "iat": now, "nbf": now, "exp": now + 60})
        verifier = AsyncVerifier(CLAIMS["iss"], "service", jwks_url=f"{web.url}/jwks")
        tasks = [asyncio.create_task(verifier.verify(token)) for _ in range(50)]
        cancelled = asyncio.create_task(verifier.verify(token))
        await asyncio.sleep(0)  # each task begins
        cancelled.cancel()
        answers.set()
        assert {claims.sub for claims in await asyncio.gather(*tasks)} == {"user:1"}
        assert cancelled.cancelled()
        assert len(web.requests) == 1


def test_a_fetch_may_outlive_its_loop(caplog: pytest.LogCaptureFixture) -> None:
    """Its end finds nobody who waits, and the next loop has the keys."""
    answers = threading.Event()
    with WebServer() as web:
        web.pages["/jwks"] = Page(JWKS, waits=answers)
        now = int(time.time())
        token = forge(claims={**CLAIMS, "iat": now, "nbf": now, "exp": now + 60})
        verifier = AsyncVerifier(CLAIMS["iss"], "service", jwks_url=f"{web.url}/jwks")

        async def give_up() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(verifier.verify(token), 0.01)

        asyncio.run(give_up())
        answers.set()
        assert asyncio.run(verifier.verify(token)).sub == "user:1"
        assert len(web.requests) == 1
    assert caplog.records == []


def test_a_flood_of_kids_makes_one_fetch() -> None:
    """10,000 tokens with random kids, from the first one on."""
    with WebServer() as web:
        web.pages["/jwks"] = Page(b'{"keys":[]}')
        verifier = Verifier(CLAIMS["iss"], "service", jwks_url=f"{web.url}/jwks", monotonic=lambda: 0.0)
        for number in range(10_000):
            with pytest.raises(UnknownTokenKeyError):
                verifier.verify(forge({**HEADER, "kid": f"{number}"}, sign=lambda _: b"x"))
        assert len(web.requests) == 1


# --- tokens of other libraries


PEM = RSA_KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


def by_pyjwt(claims: dict[str, Any]) -> str:
    return jwt.encode(claims, RSA_KEY, algorithm="RS256", headers={"kid": "rsa"})


def by_jwcrypto(claims: dict[str, Any]) -> str:
    token = JWT(header=HEADER, claims=claims)
    token.make_signed_token(JWK.from_pyca(RSA_KEY))
    return str(token.serialize())


def by_joserfc(claims: dict[str, Any]) -> str:
    return joserfc_jwt.encode(HEADER, claims, RSAKey.import_key(PEM))


@pytest.fixture
def jwks_url() -> Iterator[str]:
    with WebServer() as web:
        web.pages["/jwks"] = Page(JWKS)
        yield f"{web.url}/jwks"


@pytest.mark.parametrize("encode", [by_pyjwt, by_jwcrypto, by_joserfc])
def test_tokens_of_other_libraries_verify(jwks_url: str, encode: Callable[[dict[str, Any]], str]) -> None:
    """The form is the standard's, not only tailbone's."""
    now = int(time.time())
    claims = {**CLAIMS, "iat": now, "nbf": now, "exp": now + 60, "team": "infra"}
    verifier = Verifier(CLAIMS["iss"], "service", jwks_url=jwks_url)
    assert verifier.verify(encode(claims)).extra == {"team": "infra"}


# --- the package


FORBIDDEN = ("sanic", "grpc", "aiobotocore", "botocore", "cffi", "rich", "jwcrypto", "click")


def test_the_package_imports_nothing_heavy() -> None:
    """A service that verifies tokens loads neither the server nor the node."""
    code = "import sys, tailbone.verify; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names = {name.partition(".")[0] for name in loaded.split()}
    assert names.isdisjoint(FORBIDDEN)
    assert not any(name.startswith(("tailbone.tsnet", "tailbone.server")) for name in loaded.split())
