"""Sanic apps are made and started in one way."""

from __future__ import annotations

import asyncio
import socket

import pytest
from sanic import Sanic
from sanic.response import text
from sanic_routing.exceptions import FinalizationError

from tailbone import web


async def test_a_started_app_answers() -> None:
    """When start returns, connections are accepted; a closed server's app can be unregistered."""
    app = web.make_app("test-web")

    @app.get("/")
    async def hello(_: object) -> object:
        return text("hello")

    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    server = await web.start(app, listening)
    try:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"\r\n\r\nhello")
        writer.close()
    finally:
        await server.close()
        Sanic.unregister_app(app)


async def test_a_failed_start_leaves_nothing() -> None:
    """The socket is closed, and another app can have the name."""
    app = web.make_app("test-web")

    listening = socket.create_server(("127.0.0.1", 0))
    with pytest.raises(FinalizationError):  # an app without routes
        await web.start(app, listening)
    assert listening.fileno() == -1
    Sanic.unregister_app(web.make_app("test-web"))
