"""WSGI middleware, in an app that the standard library validates."""

from __future__ import annotations

from typing import TYPE_CHECKING
from wsgiref.validate import validator

import httpx
import pytest
from harness.refusals import AUDIENCE, TAG, bearer, refused

from tailbone.verify import Verifier, require
from tailbone.verify.wsgi import CLAIMS, TailboneMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from tailbone.testing import FakeIssuer


def whoami(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ[CLAIMS].sub.encode()]


@pytest.fixture
def client(issuer: FakeIssuer) -> httpx.Client:
    app = TailboneMiddleware(validator(whoami), Verifier(issuer.url, AUDIENCE), require(tags=TAG))
    return httpx.Client(transport=httpx.WSGITransport(validator(app)), base_url="http://a")


def test_the_app_gets_the_claims(client: httpx.Client, issuer: FakeIssuer) -> None:
    """In ``environ``."""
    answer = client.get("/", headers=bearer(issuer.token(audience=AUDIENCE, as_=TAG)))
    assert (answer.status_code, answer.text) == (200, "node:nFaketag-ci")


def test_refusals(client: httpx.Client, issuer: FakeIssuer) -> None:
    """401 and 403 as RFC 6750 asks."""
    for case in refused(issuer):
        answer = client.get("/", headers=case.headers)
        assert (answer.status_code, answer.headers.get("WWW-Authenticate")) == case[1:]
