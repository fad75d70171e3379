"""Ports outside the tailnet."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, cast

import httpx
import pytest
from harness.log import Lines

from tailbone import web
from tailbone.config.load import load
from tailbone.daemon.outside import serve_outside
from tailbone.errors import AddressInUseError
from tailbone.server import Probes
from tailbone.server.probes import Page

if TYPE_CHECKING:
    from tailbone.process.log import Logger

PROBES = Probes(
    readiness=list, notes=list, version="1", commit="c", metrics=lambda _accept: Page(b"m 1\n", "text/plain")
)


def addresses(log: Lines) -> list[str]:
    return [fields["address"] for _, _, fields in log.lines if "address" in fields]


async def test_each_binding_has_its_paths() -> None:
    """A port of 0 is a free one, which the log names; nothing listens there afterwards."""
    log = Lines()
    config = load({"server.probeBinding": "127.0.0.1:0", "server.metricsBinding": "localhost:0"}, environ={})
    async with (
        serve_outside(config, PROBES, cast("Logger", log), []),
        httpx.AsyncClient(trust_env=False) as client,
    ):
        found = {
            (number, path): (await client.get(f"http://{address}{path}")).status_code
            for number, address in enumerate(addresses(log))
            for path in ("/_healthz", "/_readyz", "/metrics", "/issue")
        }
    assert list(found.values()) == [200, 200, 200, 404, 404, 404, 200, 404]
    for address in addresses(log):
        host, _, port = address.rpartition(":")
        web.listen(host, int(port)).close()


async def test_metrics_on_the_tailnet_have_no_port_of_their_own() -> None:
    """The issuer serves them."""
    log = Lines()
    async with serve_outside(
        load({"server.metricsBinding": "tailnet"}, environ={}), PROBES, cast("Logger", log), []
    ):
        assert log.lines == []


async def test_a_port_in_use_is_an_error() -> None:
    """It names the address, and the other port is closed again."""
    log = Lines()
    with web.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        config = load(
            {"server.probeBinding": "127.0.0.1:0", "server.metricsBinding": f"127.0.0.1:{port}"}, environ={}
        )
        with pytest.raises(AddressInUseError, match=f"127.0.0.1 port {port}"):
            async with serve_outside(config, PROBES, cast("Logger", log), []):
                pass
    host, _, other = addresses(log)[0].rpartition(":")
    web.listen(host, int(other)).close()


async def test_allowed_hosts_are_reread() -> None:
    """As for the issuer, at SIGHUP."""
    log, on_reload = Lines(), []
    before = load({"server.probeBinding": "127.0.0.1:0", "server.allowedHosts": "old.example"}, environ={})
    after = load({"server.allowedHosts": "new.example"}, environ={})
    async with (
        serve_outside(before, PROBES, cast("Logger", log), on_reload),
        httpx.AsyncClient(base_url=f"http://{addresses(log)[0]}", trust_env=False) as client,
    ):
        for host, status in (("old.example", 200), ("new.example", 421)):
            assert (await client.get("/metrics", headers={"Host": host})).status_code == status
        for apply in on_reload:
            apply(after)
        for host, status in (("old.example", 421), ("new.example", 200)):
            assert (await client.get("/metrics", headers={"Host": host})).status_code == status


async def test_no_client_keeps_others_out() -> None:
    """A port has 64 connections: a further one ends the oldest, whether it has sent anything or not."""
    log = Lines()
    config = load({"server.probeBinding": "127.0.0.1:0"}, environ={})
    async with serve_outside(config, PROBES, cast("Logger", log), []), AsyncExitStack() as stack:
        host, _, port = addresses(log)[0].rpartition(":")
        flood = []
        for number in range(300):
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            writer.write(b"GET /_hea" * (number % 2))
            flood.append(reader)
        async with httpx.AsyncClient(base_url=f"http://{addresses(log)[0]}", trust_env=False) as client:
            assert (await client.get("/_healthz")).status_code == 200
            for reader in flood[:237]:
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
            assert [reader.at_eof() for reader in flood[237:]] == [False] * 63
            assert (await client.get("/_healthz")).status_code == 200
