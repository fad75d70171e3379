"""Serve probes and metrics outside the tailnet, from before the join to the end."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from tailbone import web
from tailbone.config.checks import TAILNET, parse_host_port
from tailbone.counting import IssuerCounts
from tailbone.daemon.descriptors import CONNECTIONS_OUTSIDE
from tailbone.server import AllowedHosts, IssuerServer, OutsideProbes
from tailbone.server.routes import HEALTH_PATH, METRICS_PATH, READY_PATH
from tailbone.text import host_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tailbone.config.model import Config
    from tailbone.process.log import Logger
    from tailbone.server import Probes

_LOCAL_NAME = "localhost"


@asynccontextmanager
async def serve_outside(
    config: Config, probes: Probes, log: Logger, on_reload: list[Callable[[Config], None]]
) -> AsyncIterator[None]:
    """Serve what server.probeBinding and server.metricsBinding ask for, while the context is open.

    Args:
        config: all settings.
        probes: what is answered.
        log: receives the addresses.
        on_reload: gets what applies changed settings.

    Raises:
        AddressInUseError: an address cannot be listened on.
    """
    server = config.server
    servers = []
    try:
        for binding, paths in (
            (server.probe_binding, (HEALTH_PATH, READY_PATH, METRICS_PATH)),
            (server.metrics_binding, (METRICS_PATH,)),
        ):
            if binding and binding != TAILNET:
                handlers = OutsideProbes(probes, paths, _hosts(config))
                on_reload.append(partial(_reload, handlers))
                servers.append(await _serve(binding, handlers, log))
        yield
    finally:
        for each in servers:
            await each.close(0.0)


def _hosts(config: Config) -> AllowedHosts:
    return AllowedHosts([_LOCAL_NAME, *config.server.allowed_hosts], any_address=True)


def _reload(handlers: OutsideProbes, config: Config) -> None:
    handlers.hosts = _hosts(config)


async def _serve(binding: str, handlers: OutsideProbes, log: Logger) -> IssuerServer:
    # Its refusals are not the issuer's.
    server = IssuerServer(handlers, log, IssuerCounts(), most_connections=CONNECTIONS_OUTSIDE)
    listening = web.listen(*parse_host_port(binding))
    address = host_port(*listening.getsockname()[:2])
    await server.start_on(listening)
    log.info("serving outside the tailnet", address=address, paths=list(handlers.routes))
    return server
