"""The standard health service (grpc.health.v1): serving until the server closes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from tailbone.errors import UnknownPathError

if TYPE_CHECKING:
    from collections.abc import Iterable

_Response = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # generated without types
    """Health of the services of one server.

    grpcio-health-checking gives the messages and the stubs. A watch of its own asyncio servicer does not end
    with the server: one monitoring client would take the whole grace of every shutdown.
    """

    # ruff: noqa: N802  the methods have the wire's names

    def __init__(self, services: Iterable[str]) -> None:
        """Make a service that reports SERVING until it is closed.

        Args:
            services: names of the services; the empty name, for the whole server, is always added.
        """
        self._services = frozenset(services) | {""}
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Send NOT_SERVING to every watch, and end it."""
        self._closing.set()

    async def Check(self, request: Any, _: Any) -> Any:
        if request.service not in self._services:
            raise UnknownPathError("no such service is served here")
        return self._now(request.service)

    async def Watch(self, request: Any, context: Any) -> None:
        await context.write(self._now(request.service))
        if not self._closing.is_set():
            await self._closing.wait()
            await context.write(self._now(request.service))

    def _now(self, service: str) -> Any:
        if service not in self._services:
            return _Response(status=_Response.SERVICE_UNKNOWN)
        return _Response(status=_Response.NOT_SERVING if self._closing.is_set() else _Response.SERVING)
