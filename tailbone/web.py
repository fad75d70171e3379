"""Sanic apps on one listening socket each: how this package makes, starts and closes them."""

from __future__ import annotations

import os
import socket
from typing import Any

from sanic import Sanic

from tailbone.errors import AddressInUseError


def make_app(name: str, **options: Any) -> Any:
    """Return an app without a log of requests, extensions and a banner.

    Args:
        name: Sanic refuses two apps of one name in a process.
        options: of ``Sanic``.
    """
    app = Sanic(name, configure_logging=False, **options)
    # TOUCHUP rewrites methods of Sanic's classes for one app, which works only once in a process.
    app.config.update(ACCESS_LOG=False, AUTO_EXTEND=False, MOTD=False, TOUCHUP=False)
    # Sanic's advice about a --debug option, which no command here has.
    os.environ.setdefault("SANIC_IGNORE_PRODUCTION_WARNING", "1")
    return app


def listen(host: str, port: int) -> socket.socket:
    """Return a bound TCP socket.

    Raises:
        AddressInUseError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise AddressInUseError(f"{host} port {port} cannot be listened on: {error.strerror}") from None


async def start(app: Any, listening: socket.socket, **options: Any) -> Any:
    """Serve an app on a bound socket; when this returns, connections are accepted.

    After a failure the socket is closed, and the app's name is free again.

    Args:
        app: from :func:`make_app`.
        listening: the socket; the server closes it.
        options: of ``Sanic.create_server``.

    Returns:
        Sanic's server.
    """
    try:
        server: Any = await app.create_server(sock=listening, **options)
        await server.startup()
        await server.before_start()
        await server.after_start()
    except BaseException:
        listening.close()
        Sanic.unregister_app(app)
        raise
    return server


async def close(app: Any, server: Any) -> None:
    """Stop a started server at once, and free the app's name."""
    closed = server.close()
    for connection in list(server.connections):
        connection.close()
    Sanic.unregister_app(app)
    await closed
