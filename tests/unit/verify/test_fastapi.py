"""The FastAPI dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from fastapi import Depends, FastAPI
from harness.refusals import AUDIENCE, TAG, bearer, refused

from tailbone.verify import AsyncVerifier, Claims, require
from tailbone.verify.fastapi import TailboneBearer

if TYPE_CHECKING:
    from tailbone.testing import FakeIssuer


@pytest.fixture
def client(issuer: FakeIssuer) -> httpx.AsyncClient:
    app = FastAPI()
    check = TailboneBearer(AsyncVerifier(issuer.url, AUDIENCE), require(tags=TAG))

    async def whoami(caller: Claims = Depends(check)) -> dict[str, str]:  # noqa: B008 -- FastAPI's way
        return {"sub": caller.sub}

    app.add_api_route("/", whoami)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a")


async def test_a_route_gets_the_claims(client: httpx.AsyncClient, issuer: FakeIssuer) -> None:
    """As an argument."""
    answer = await client.get("/", headers=bearer(issuer.token(audience=AUDIENCE, as_=TAG)))
    assert (answer.status_code, answer.json()) == (200, {"sub": "node:nFaketag-ci"})


async def test_refusals(client: httpx.AsyncClient, issuer: FakeIssuer) -> None:
    """401 and 403 as RFC 6750 asks."""
    for case in refused(issuer):
        answer = await client.get("/", headers=case.headers)
        assert (answer.status_code, answer.headers.get("WWW-Authenticate")) == case[1:]


async def test_unavailable_keys() -> None:
    """503, since another token would not help."""
    app = FastAPI(dependencies=[Depends(TailboneBearer(AsyncVerifier("http://127.0.0.1:1", AUDIENCE)))])
    app.add_api_route("/", lambda: None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
        token = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEiLCJ0eXAiOiJKV1QifQ.e30.AAAA"
        assert (await client.get("/", headers=bearer(token))).status_code == 503


async def test_the_openapi_document_names_the_scheme(client: httpx.AsyncClient) -> None:
    """So /docs has a field for the token."""
    document = (await client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"] == {
        "tailbone": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }
    assert document["paths"]["/"]["get"]["security"] == [{"tailbone": []}]
