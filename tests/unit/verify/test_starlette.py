"""Starlette's AuthenticationMiddleware with TailboneBackend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from harness.refusals import AUDIENCE, TAG, bearer, refused
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tailbone.verify import AsyncVerifier
from tailbone.verify.starlette import TailboneBackend, on_error

if TYPE_CHECKING:
    from starlette.requests import Request

    from tailbone.testing import FakeIssuer


async def whoami(request: Request) -> PlainTextResponse:
    user = request.user
    return PlainTextResponse(f"{user.identity} {user.display_name}" if user.is_authenticated else "nobody")


@requires("write")
async def write(request: Request) -> PlainTextResponse:
    return PlainTextResponse(",".join(request.auth.scopes))


@pytest.fixture
def client(issuer: FakeIssuer) -> httpx.AsyncClient:
    authentication = Middleware(
        AuthenticationMiddleware,
        backend=TailboneBackend(AsyncVerifier(issuer.url, AUDIENCE)),
        on_error=on_error,
    )
    app = Starlette(routes=[Route("/", whoami), Route("/write", write)], middleware=[authentication])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a")


async def test_user_and_scopes(client: httpx.AsyncClient, issuer: FakeIssuer) -> None:
    """``request.user`` is the caller; the words of ``scope`` are Starlette's scopes."""
    headers = bearer(issuer.token(audience=AUDIENCE, scope="write read"))
    assert (await client.get("/", headers=headers)).text == "user:1 dev@example.com"
    assert (await client.get("/write", headers=headers)).text == "authenticated,read,write"
    tagged = bearer(issuer.token(audience=AUDIENCE, as_=TAG))
    assert (await client.get("/", headers=tagged)).text == "node:nFaketag-ci tag-ci.fake.tailnet.test"
    assert (await client.get("/write", headers=tagged)).status_code == 403


async def test_without_a_token_nobody_is_authenticated(client: httpx.AsyncClient) -> None:
    """Routes decide by ``requires``, as with any backend."""
    assert (await client.get("/")).text == "nobody"
    assert (await client.get("/", headers={"Authorization": "Basic YTpi"})).text == "nobody"


async def test_bad_tokens(client: httpx.AsyncClient, issuer: FakeIssuer) -> None:
    """They are answered with 401 on every route."""
    for case in refused(issuer):
        if case.status == 401 and case.challenge != "Bearer":
            answer = await client.get("/", headers=case.headers)
            assert (answer.status_code, answer.headers.get("WWW-Authenticate")) == case[1:]
