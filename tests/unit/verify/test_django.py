"""Django middleware, in a site."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from harness.django_site import settings
from harness.refusals import AUDIENCE, TAG, bearer, refused

from tailbone.verify import Verifier

if TYPE_CHECKING:
    from tailbone.testing import FakeIssuer


@pytest.fixture
def client(issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    from django.core.wsgi import get_wsgi_application

    monkeypatch.setattr(settings, "TAILBONE_VERIFIER", Verifier(issuer.url, AUDIENCE))
    return httpx.Client(transport=httpx.WSGITransport(get_wsgi_application()), base_url="http://a")


def test_views_get_the_claims(client: httpx.Client, issuer: FakeIssuer) -> None:
    """As an attribute of the request."""
    answer = client.get("/", headers=bearer(issuer.token(audience=AUDIENCE, as_=TAG)))
    assert (answer.status_code, answer.text) == (200, "node:nFaketag-ci")


def test_refusals(client: httpx.Client, issuer: FakeIssuer) -> None:
    """401 and 403 as RFC 6750 asks."""
    for case in refused(issuer):
        answer = client.get("/", headers=case.headers)
        assert (answer.status_code, answer.headers.get("WWW-Authenticate")) == case[1:]
