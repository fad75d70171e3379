"""STS: what is asked of it, and what is made of its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest
from harness.web import Page, WebServer

from tailbone.client.aws import Role
from tailbone.client.sts import assume
from tailbone.errors import ConfigError, ExchangeError

if TYPE_CHECKING:
    from collections.abc import Iterator

ARN = "arn:aws:iam::123456789012:role/ci/Deploy"
ANSWER = b"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>s3cret</SecretAccessKey>
<SessionToken>sess</SessionToken><Expiration>2026-11-29T02:00:00Z</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""
REFUSAL = b"""<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>AccessDenied</Code><Message>Not authorized
 to perform it</Message></Error></ErrorResponse>"""


@pytest.fixture
def sts() -> Iterator[WebServer]:
    with WebServer() as web:
        yield web


def test_the_credentials_of_an_answer(sts: WebServer) -> None:
    """The request has no signature; the credentials are not shown."""
    sts.pages["/"] = Page(ANSWER, {"Content-Type": "text/xml"})
    found = assume(Role(ARN, endpoint=f"{sts.url}/"), "eyJ.a.b")
    assert found == ("ASIA1", "s3cret", "sess", "2026-11-29T02:00:00Z")
    assert "s3cret" not in repr(found)
    form = {name: values[0] for name, values in parse_qs(sts.requests[0]["body"]).items()}
    assert form == {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": ARN,
        "RoleSessionName": "tailbone",
        "DurationSeconds": "3600",
        "WebIdentityToken": "eyJ.a.b",
    }
    assert "Authorization" not in sts.requests[0]


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (Page(REFUSAL, status=403), "refused the token: Not authorized to perform it (AccessDenied)"),
        (
            Page(REFUSAL.replace(b"Not", b"eyJhbGciOiJSUzI1NiJ9.e30.c2ln"), status=400),
            "token: [redacted] authorized",
        ),
        (Page(b"<html", status=502), "refused the token:  (status 502)"),
        (Page(b"<html", status=200), "did not answer with credentials"),
    ],
)
def test_a_refusal_is_the_text_of_sts(sts: WebServer, page: Page, text: str) -> None:
    """In one line, with its code."""
    sts.pages["/"] = page
    with pytest.raises(ExchangeError) as failure:
        assume(Role(ARN, endpoint=f"{sts.url}/"), "eyJ.a.b")
    assert text in failure.value.message


def test_wrong_usage() -> None:
    """Checked before anything is sent."""
    urls = [Role(ARN, endpoint=url) for url in ("sts", "http://sts:x", "http://[sts", "file:///etc/passwd")]
    for role in (Role("role/x"), Role(ARN, "eu/central"), Role(ARN, duration_s=60), *urls):
        with pytest.raises(ConfigError):
            assume(role, "eyJ.a.b")
