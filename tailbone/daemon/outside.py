"""Serve probes and metrics outside the tailnet, from before the join to the end."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tailbone import web
from tailbone.config.checks import TAILNET, parse_host_port
from tailbone.counting import IssuerCounts
from tailbone.server import AllowedHosts, IssuerServer, OutsideProbes
from tailbone.server.routes import HEALTH_PATH, METRICS_PATH, READY_PATH
from tailbone.text import host_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tailbone.config.model import Config
    from tailbone.process.log import Logger
    from tailbone.server import Probes

_LOCAL_NAME = "localhost"


@asynccontextmanager
async def serve_outside(config: Config, probes: Probes, log: Logger) -> AsyncIterator[None]:
    """Serve what server.probeBinding and server.metricsBinding ask for, while the context is open.

    Args:
        config: all settings.
        probes: what is answered.
        log: receives the addresses.

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
                servers.append(await _serve(binding, paths, config, probes, log))
        yield
    finally:
        for each in servers:
            await each.close(0.0)


async def _serve(
    binding: str, paths: tuple[str, ...], config: Config, probes: Probes, log: Logger
) -> IssuerServer:
    hosts = AllowedHosts([_LOCAL_NAME, *config.server.allowed_hosts], any_address=True)
    # Its refusals are not the issuer's.
    server = IssuerServer(OutsideProbes(probes, paths, hosts), log, IssuerCounts())
    listening = web.listen(*parse_host_port(binding))
    address = host_port(*listening.getsockname()[:2])
    await server.start_on(listening)
    log.info("serving outside the tailnet", address=address, paths=list(paths))
    return server
