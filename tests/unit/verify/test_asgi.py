"""ASGI middleware, in front of a Starlette app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from harness.refusals import AUDIENCE, TAG, bearer, refused
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tailbone.verify import AsyncVerifier, require
from tailbone.verify.asgi import CLAIMS, TailboneMiddleware

if TYPE_CHECKING:
    from starlette.requests import Request

    from tailbone.testing import FakeIssuer


async def whoami(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.scope[CLAIMS].sub)


@pytest.fixture
def app(issuer: FakeIssuer) -> Starlette:
    protection = Middleware(
        TailboneMiddleware, verifier=AsyncVerifier(issuer.url, AUDIENCE), require=require(tags=TAG)
    )
    return Starlette(routes=[Route("/", whoami)], middleware=[protection])


async def test_the_app_gets_the_claims(app: Starlette, issuer: FakeIssuer) -> None:
    """They are in the connection's scope."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
        answer = await client.get("/", headers=bearer(issuer.token(audience=AUDIENCE, as_=TAG)))
    assert (answer.status_code, answer.text) == (200, "node:nFaketag-ci")


async def test_refusals(app: Starlette, issuer: FakeIssuer) -> None:
    """The app never sees a request without a good token."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
        for case in refused(issuer):
            answer = await client.get("/", headers=case.headers)
            assert (answer.status_code, answer.headers.get("WWW-Authenticate")) == case[1:]
            assert set(answer.json()) == {"error", "message"}


async def test_a_websocket_is_closed_before_the_handshake(app: Starlette) -> None:
    """Servers answer that with 403."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert sent[0]["reason"] == "missing_token"
