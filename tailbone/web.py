"""Sanic apps on one listening socket each: how this package makes and starts them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sanic import Sanic

if TYPE_CHECKING:
    import socket


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
