"""What verifiers would refuse."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tailbone.config.load import load
from tailbone.doctor.rules import (
    check_clock,
    check_content_type,
    check_copy,
    check_issuer,
    check_jwks,
    check_settings,
    check_token,
    check_token_issuer,
    check_variables,
)
from tailbone.doctor.targets import TARGETS
from tailbone.jwks.document import Document

ISSUER = "https://issuer.example"
KEY = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "a", "n": "_" * 341 + "w", "e": "AQAB"}


def claims(**others: Any) -> dict[str, Any]:
    now = time.time()
    return {"iss": ISSUER, "sub": "node:n1CNTRL", "aud": "x", "exp": now + 1800, **others}


def problems(name: str, audience: str = "x", **others: Any) -> list[tuple[str, str]]:
    token = claims(**others)
    found = [check_token_issuer(token, ISSUER), *check_token(token, audience, TARGETS[name])]
    return [(finding.level, finding.check) for finding in found if finding.level != "ok"]


@pytest.mark.parametrize("name", TARGETS)
def test_a_good_token_passes_everywhere(name: str) -> None:
    """A node's sub, one audience, half an hour."""
    assert problems(name) == []


@pytest.mark.parametrize(
    ("name", "subject"),
    [("aws", "u:123"), ("aws", "n" * 256), ("gcp", "n" * 128), ("azure", "nöde"), ("vault", "node:*")],
)
def test_a_sub_that_is_refused(name: str, subject: str) -> None:
    """Too short, too long, not ASCII, or a pattern."""
    assert problems(name, sub=subject) == [("error", "subject")]


def test_another_issuer_or_audience() -> None:
    """The running server may have other settings than those at hand."""
    assert problems("aws", iss="https://other.example") == [("error", "token's issuer")]
    assert problems("aws", aud="y") == [("error", "audience")]
    assert problems("aws", audience="YOUR_AUDIENCE") == [("warning", "audience")]


def test_a_lifetime_that_is_refused() -> None:
    """Azure's SDK keeps a token for ten minutes; Google accepts at most 48 hours."""
    assert problems("azure", exp=time.time() + 600) == [("warning", "lifetime")]
    assert problems("gcp", exp=time.time() + 49 * 3600) == [("error", "lifetime")]


def test_the_settings() -> None:
    """Each that is set is named, with its place."""
    flags = {"keys.issuer": ISSUER, "output": "json"}
    [found] = check_settings(load(flags, environ={"TB_KEYS_MAXAGE": "60s"}))
    assert found.text == (
        "valid; set are keys.issuer (flag --issuer), keys.maxAge (variable TB_KEYS_MAXAGE), "
        "output (flag --output)"
    )
    assert check_settings(load({}, environ={}))[0].text == "none is set, so that defaults apply"


@pytest.mark.parametrize(
    ("issuer", "name", "level"),
    [
        ("tailbone", "vault", "error"),
        ("http://127.0.0.1:8090", "aws", "error"),
        ("https://127.0.0.1:8090", "openai", "error"),
        ("http://127.0.0.1:8090", "vault", "ok"),
        ("http://127.0.0.1:8090", "kubernetes", "error"),
        ("https://127.0.0.1:8090", "kubernetes", "ok"),
        ("https://issuer.example/prod", "aws", "ok"),
        (f"https://issuer.example/{'x' * 250}", "aws", "error"),
        (f"https://issuer.example/{'x' * 250}", "azure", "ok"),
    ],
)
def test_the_issuer(issuer: str, name: str, level: str) -> None:
    """Most verifiers fetch it over the internet."""
    assert check_issuer(issuer, TARGETS[name]).level == level


def test_without_a_verifier_the_rules_of_all_apply() -> None:
    """Whatever reads the tokens may be on the internet, and know RS256 only."""
    assert check_issuer("http://127.0.0.1:8090", None).level == "error"
    jwks = Document({"keys": [{**KEY, "alg": "ES256"}]})
    assert ("warning", "algorithm") in [(finding.level, finding.check) for finding in check_jwks(jwks, None)]


def test_a_good_jwks() -> None:
    """The finding says how many keys there are."""
    [found] = check_jwks(Document({"keys": [KEY]}), TARGETS["aws"])
    assert (found.level, found.text) == (
        "ok",
        "the JWKS meets the rules of AWS; number of keys: 1",
    )


@pytest.mark.parametrize(
    ("key", "check", "text"),
    [
        ({**KEY, "alg": "ES256"}, "algorithm", "key a is for ES256, and Microsoft Entra ID accepts RS256"),
        ({**KEY, "alg": ""}, "JWKS", "key a lacks alg"),
        ({**KEY, "x5t": "x"}, "JWKS", "key a has further members: x5t"),
        ({**KEY, "d": "x"}, "JWKS", "PRIVATE"),
        ({**KEY, "kty": "OKP"}, "JWKS", "refuse"),
    ],
)
def test_a_key_that_is_refused(key: dict[str, object], check: str, text: str) -> None:
    """Each finding names the key."""
    found = check_jwks(Document({"keys": [key]}), TARGETS["azure"])
    assert [finding for finding in found if finding.check == check and text in finding.text]
    assert [finding for finding in found if finding.level == "ok"] == []


def test_too_many_keys() -> None:
    """Some verifiers refuse a set of ten or more."""
    jwks = Document({"keys": [{**KEY, "kid": str(number)} for number in range(10)]})
    assert [finding.text for finding in check_jwks(jwks, TARGETS["aws"]) if "10 keys" in finding.text]


@pytest.mark.parametrize(("skew_s", "level"), [(0, "ok"), (4, "ok"), (-6, "warning"), (61, "error")])
def test_the_clock(skew_s: float, level: str) -> None:
    """Verifiers allow for little difference."""
    assert check_clock("the control server", skew_s).level == level


def test_a_variable_that_wins_over_the_tokens_file() -> None:
    """Its name is shown, not its value."""
    assert check_variables(TARGETS["azure"], {"AZURE_TOKEN_CREDENTIALS": "WorkloadIdentityCredential"}) == []
    assert len(check_variables(TARGETS["azure"], {"AZURE_TOKEN_CREDENTIALS": "dev"})) == 1
    assert len(check_variables(TARGETS["azure"], {"AZURE_USERNAME": "dev"})) == 1
    assert len(check_variables(TARGETS["claude"], {"ANTHROPIC_PROFILE": "dev"})) == 1
    [found] = check_variables(TARGETS["aws"], {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": ""})
    assert found.text == "AWS_ACCESS_KEY_ID is set, and wins over the token's file"
    [found] = check_variables(
        TARGETS["gcp"], {"GOOGLE_CREDENTIALS": "x", "GOOGLE_APPLICATION_CREDENTIALS": "y"}
    )
    assert found.fix == "unset GOOGLE_CREDENTIALS"


@pytest.mark.parametrize(
    ("content_type", "level"),
    [
        ("application/json", "ok"),
        ("application/jwk-set+json; charset=utf-8", "ok"),
        ("binary/octet-stream", "error"),
        ("text/html", "error"),
    ],
)
def test_the_content_type_in_the_bucket(content_type: str, level: str) -> None:
    """S3 serves an object with the type that it was stored with."""
    assert check_content_type("s3://b/jwks.json", content_type).level == level


def test_the_public_copy() -> None:
    """Every key that the server publishes is seen by verifiers, and none other under its kid."""
    original = Document({"keys": [KEY]})
    assert check_copy("the bucket", original, original).level == "ok"
    lacking = check_copy("the bucket", original, Document({"keys": []}))
    assert (lacking.level, lacking.text) == ("warning", "the public JWKS lacks a of the bucket")
    other = Document({"keys": [{**KEY, "n": "A" + KEY["n"][1:]}, KEY]})
    assert check_copy("the bucket", original, other).level == "error"
