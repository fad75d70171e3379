"""Sanic middleware, with a real server."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from harness.refusals import AUDIENCE, TAG, bearer, refused
from sanic import Blueprint, Sanic
from sanic.response import HTTPResponse, text

from tailbone.verify import AsyncVerifier, require
from tailbone.verify.sanic import protect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sanic import Request

    from tailbone.testing import FakeIssuer


@pytest.fixture
async def client(issuer: FakeIssuer) -> AsyncIterator[httpx.AsyncClient]:
    app: Any = Sanic("tailbone-verify-test", configure_logging=False)
    app.config.update(TOUCHUP=False, MOTD=False)
    closed = Blueprint("closed", url_prefix="/closed")

    @closed.get("/")
    async def whoami(request: Request) -> HTTPResponse:
        return text(request.ctx.claims.sub)

    @app.get("/open")  # type: ignore[untyped-decorator]
    async def open_to_all(request: Request) -> HTTPResponse:
        return text("open")

    protect(closed, AsyncVerifier(issuer.url, AUDIENCE), require(tags=TAG))
    app.blueprint(closed)
    listening = socket.create_server(("127.0.0.1", 0))
    server: Any = await app.create_server(sock=listening)
    await server.startup()
    await server.before_start()
    await server.after_start()
    _, port = listening.getsockname()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client
    await server.close()
    Sanic.unregister_app(app)


async def test_handlers_get_the_claims(client: httpx.AsyncClient, issuer: FakeIssuer) -> None:
    """In the request's context; routes outside the blueprint stay open."""
    answer = await client.get("/closed/", headers=bearer(issuer.token(audience=AUDIENCE, as_=TAG)))
    assert (answer.status_code, answer.text) == (200, "node:nFaketag-ci")
    assert (await client.get("/open")).text == "open"


async def test_refusals(client: httpx.AsyncClient, issuer: FakeIssuer) -> None:
    """401 and 403 as RFC 6750 asks."""
    for case in refused(issuer):
        answer = await client.get("/closed/", headers=case.headers)
        assert (answer.status_code, answer.headers.get("WWW-Authenticate")) == case[1:]
        assert answer.headers["Content-Type"] == "application/json"


async def test_two_fields_are_refused(client: httpx.AsyncClient, issuer: FakeIssuer) -> None:
    """Two parts of a service could read different ones."""
    token = bearer(issuer.token(audience=AUDIENCE, as_=TAG))
    assert (await client.get("/closed/", headers=token * 2)).status_code == 401
