"""IssuerServer: from start to drained close."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

import pytest
from sanic import Sanic

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from conftest import Client, Running, World

GET = b"GET /_healthz HTTP/1.1\r\nHost: x\r\n\r\n"
ISSUE = b"POST /issue HTTP/1.1\r\nHost: tailbone\r\n\r\n"


async def test_two_servers_in_one_process(
    start: Callable[[World], AbstractAsyncContextManager[Running]], world: World
) -> None:
    """At the same time, and one after the other."""
    async with start(world) as first, start(world) as second:
        assert (await first.ask(ISSUE)).status == (await second.ask(ISSUE)).status == 200
    async with start(world) as third:
        assert (await third.ask(ISSUE)).status == 200


async def test_a_closed_server_is_forgotten(
    start: Callable[[World], AbstractAsyncContextManager[Running]], world: World
) -> None:
    """Sanic keeps a table of all apps: servers that come and go leave nothing in it."""
    before = dict(Sanic._app_registry)
    async with start(world):
        assert len(Sanic._app_registry) == len(before) + 1
    assert Sanic._app_registry == before


async def test_a_start_that_fails_is_forgotten(world: World, tmp_path: Path) -> None:
    """Its socket and its app are gone."""
    apps = set(Sanic._app_registry)
    with pytest.raises(FileNotFoundError):
        await world.server().start(tmp_path / "missing" / "socket")
    assert set(Sanic._app_registry) == apps


async def test_a_closed_server_accepts_nothing(running: Running) -> None:
    """Its socket no longer listens."""
    await running.server.close(1.0)
    with pytest.raises(ConnectionRefusedError):
        await running.connect()


async def test_close_waits_for_what_is_under_way(running: Running, world: World) -> None:
    """A token that is being signed is delivered, and the client is told that the connection ends."""
    gated = world.gate()
    client = await running.connect()
    client.send(ISSUE)
    await gated.asked.wait()
    closing = asyncio.create_task(running.server.close(30.0))
    await running.until(lambda: running.server.draining)
    gated.gate.set()
    answer = await client.response()
    assert (answer.status, answer.fields["Connection"]) == (200, "close")
    await closing
    assert await client.rest() == b""


def _refuses(path: str) -> bool:
    """Whether nobody listens there any more."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) != 0


async def test_a_request_that_has_begun_may_end(running: Running) -> None:
    """Its first bytes came before the close."""
    client = await running.connect()
    client.send(ISSUE[:10])
    await running.until(lambda: any(len(c.recv_buffer) == 10 for c in running.server.connections))
    closing = asyncio.create_task(running.server.close(30.0))
    await running.until(lambda: _refuses(running.path))
    answer = await client.ask(ISSUE[10:])
    assert (answer.status, answer.fields["Connection"]) == (200, "close")
    await closing


async def test_a_request_on_its_way_is_still_answered(running: Running) -> None:
    """Its client had not heard of the close when it sent it on an idle connection."""
    client = await running.connect()
    await client.ask(GET)
    closing = asyncio.create_task(running.server.close(30.0))
    await running.until(lambda: running.server.draining)
    answer = await client.ask(ISSUE)
    assert (answer.status, answer.fields["Connection"]) == (200, "close")
    await closing


async def test_who_has_connected_before_the_close_is_answered(running: Running) -> None:
    """The kernel took the connection; that nobody has accepted it yet is not the client's fault."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(running.path)
        sock.settimeout(10.0)
        sock.sendall(ISSUE)
        await running.server.close(30.0)
        assert sock.recv(12) == b"HTTP/1.1 200"


async def test_idle_connections_do_not_hold_the_close(running: Running) -> None:
    """They end, and the grace is not spent on them."""
    clients = [await running.connect() for _ in range(3)]
    await clients[0].ask(GET)
    began = time.monotonic()
    await running.server.close(30.0)
    assert time.monotonic() - began < 5.0
    assert [await client.rest() for client in clients] == [b"", b"", b""]


async def test_after_the_grace_the_rest_is_cut(running: Running, world: World) -> None:
    """A signature that never comes holds nobody up."""
    gated = world.gate()
    client = await running.connect()
    client.send(ISSUE)
    await gated.asked.wait()
    await running.server.close(0.2)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await client.response()
    assert not running.server.connections


async def test_close_twice_at_once(running: Running, world: World) -> None:
    """The second waits for the first, a third finds nothing to do."""
    gated = world.gate()
    client = await running.connect()
    client.send(ISSUE)
    await gated.asked.wait()
    closings = [asyncio.create_task(running.server.close(30.0)) for _ in range(2)]
    await running.until(lambda: running.server.draining)
    assert not any(closing.done() for closing in closings)
    gated.gate.set()
    await asyncio.gather(*closings)
    await running.server.close(30.0)
    assert (await client.response()).status == 200


async def test_close_before_start(world: World) -> None:
    """Nothing was begun, nothing is to end."""
    server = world.server()
    await server.close(30.0)
    assert not server.draining


async def test_a_cancelled_close_goes_on(running: Running, world: World) -> None:
    """Its caller no longer waits; the request that is under way is still answered."""
    gated = world.gate()
    client = await running.connect()
    client.send(ISSUE)
    await gated.asked.wait()
    closing = asyncio.create_task(running.server.close(30.0))
    await running.until(lambda: running.server.draining)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    gated.gate.set()
    assert (await client.response()).status == 200
    await running.server.close(30.0)
    assert not running.server.connections


async def test_under_load_no_answer_is_lost(running: Running, world: World) -> None:
    """Each token of which a line was written reached its client whole, and each client saw a clean end."""
    clients = [await running.connect() for _ in range(16)]
    received: list[int] = []

    async def keep_asking(client: Client) -> bytes:
        while True:
            client.send(ISSUE)
            try:
                answer = await client.response()
            except asyncio.IncompleteReadError as ended:
                return ended.partial
            except ConnectionResetError:
                return b""
            received.append(answer.status)
            if answer.fields.get("Connection") == "close":
                return await client.rest()

    asking = [asyncio.create_task(keep_asking(client)) for client in clients]
    await running.until(lambda: len(received) > 100)
    await running.server.close(30.0)
    rests = await asyncio.gather(*asking)
    assert rests == [b""] * 16
    assert received == [200] * len(world.audit.lines)
