"""Reports on tokens for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tailbone.errors import ConfigError
from tailbone.testing import FakeIssuer
from tailbone.verify import require
from tailbone.verify.report import report_on

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeIssuer]:
    with FakeIssuer() as issuer:
        yield issuer


def test_a_good_token(fake: FakeIssuer) -> None:
    """Header and claims are shown, and nothing is left unchecked."""
    report = report_on(fake.token(audience="a", scope="x"), issuer=fake.url, audience=["a"])
    assert (report.verified, report.error, report.notes) == (True, "", ())
    assert report.header == {"alg": "RS256", "kid": "fake-1", "typ": "JWT"}
    assert (report.claims["user"], report.claims["scope"]) == ("dev@example.com", "x")


def test_without_arguments_the_token_names_its_issuer(fake: FakeIssuer) -> None:
    """Two notes say what this does not check."""
    report = report_on(fake.token())
    assert report.verified
    assert ["--issuer" in report.notes[0], "--audience" in report.notes[1]] == [True, True]


@pytest.mark.parametrize(
    ("token", "arguments", "error"),
    [
        ({"expired": True}, {}, "token_expired"),
        ({"audience": "b"}, {"audience": ["a"]}, "wrong_audience"),
        ({"wrong_key": True}, {}, "bad_signature"),
        ({}, {"require": require(tags="tag:ci")}, "not_permitted"),
        ({}, {"issuer": "http://127.0.0.1:1"}, "keys_unavailable"),
    ],
)
def test_a_bad_token(fake: FakeIssuer, token: dict[str, Any], arguments: dict[str, Any], error: str) -> None:
    """The reason is there, and what is in the token."""
    report = report_on(fake.token(**token), **arguments)
    assert (report.verified, report.error) == (False, error)
    assert report.claims["user"] == "dev@example.com"


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "..", "e30.e30.e30", "é", "W10.W10."])
def test_other_text(text: str) -> None:
    """Nothing is shown, and the reason is the form."""
    report = report_on(text)
    assert (report.error, report.claims) == ("malformed_token", {})


def test_an_issuer_that_is_not_a_url() -> None:
    """The keys must then be named."""
    with FakeIssuer() as issuer:
        url, issuer.url = issuer.jwks_url, "tailbone"
        token = issuer.token()
        assert report_on(token).error == "wrong_issuer"
        assert "--jwks-url" in report_on(token).message
        assert report_on(token, jwks_url=url).verified


def test_unsafe_arguments_are_the_users_mistake(fake: FakeIssuer) -> None:
    """They are no property of the token."""
    with pytest.raises(ConfigError):
        report_on(fake.token(), jwks_url="http://jwks.example.com")
