"""Django REST framework: authentication and permission."""

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
    monkeypatch.setattr(settings, "MIDDLEWARE", [])
    return httpx.Client(transport=httpx.WSGITransport(get_wsgi_application()), base_url="http://a")


def test_views_get_user_and_claims(client: httpx.Client, issuer: FakeIssuer) -> None:
    """``request.user`` is the caller, ``request.auth`` the claims."""
    answer = client.get("/api", headers=bearer(issuer.token(audience=AUDIENCE, as_=TAG)))
    assert answer.json() == ["node:nFaketag-ci", "tag-ci.fake.tailnet.test", [TAG]]


def test_refusals(client: httpx.Client, issuer: FakeIssuer) -> None:
    """401 with a challenge, not the framework's 403; 403 for a caller who is not permitted."""
    for case in refused(issuer):
        answer = client.get("/api", headers=case.headers)
        assert answer.status_code == case.status
        if case.status == 401:
            assert answer.headers["WWW-Authenticate"] == case.challenge


def test_unavailable_keys(client: httpx.Client, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, since another token would not help."""
    monkeypatch.setattr(settings, "TAILBONE_VERIFIER", Verifier("http://127.0.0.1:1", AUDIENCE))
    assert client.get("/api", headers=bearer(issuer.token(audience=AUDIENCE))).status_code == 503
