"""One connection: how requests follow each other, and how long anything may last."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from tailbone.server.connection import (
    BUFFER_LIMIT,
    IDLE_TIME_S,
    LINGER_LIMIT,
    LINGER_TIME_S,
    REQUEST_TIME_S,
    WRITE_TIME_S,
)
from tailbone.server.request_head import HEAD_LIMIT

if TYPE_CHECKING:
    from conftest import Client, Running, World

GET = b"GET /_healthz HTTP/1.1\r\nHost: x\r\n\r\n"
ISSUE = b"POST /issue HTTP/1.1\r\nHost: tailbone\r\n\r\n"
HEALTH = b'{"ok":true,"version":"1.2.3","commit":"abc1234"}'


def now() -> float:
    return asyncio.get_running_loop().time()


async def arrived(running: Running, client: Client, data: bytes) -> None:
    """Send, and wait until the only connection is in the middle of a request."""
    client.send(data)
    await running.until(lambda: any(c.deadline - now() <= REQUEST_TIME_S for c in running.server.connections))


# --- one after the other


async def test_a_connection_serves_many_requests(running: Running) -> None:
    """HTTP/1.1 stays open, with no word about it."""
    client = await running.connect()
    for _ in range(3):
        answer = await client.ask(GET)
        assert (answer.status, answer.body, "Connection" in answer.fields) == (200, HEALTH, False)


async def test_pipelined_requests_are_answered_in_order(running: Running) -> None:
    """Also good and bad ones together, with bodies between them."""
    client = await running.connect()
    client.send(
        GET
        + b"POST /issue HTTP/1.1\r\nHost: tailbone\r\nContent-Length: 5\r\n\r\nhello"
        + b"GET /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        + b"HEAD /_healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        + GET
    )
    statuses = [(await client.response(head_only=number == 3)).status for number in range(5)]
    assert statuses == [200, 200, 404, 200, 200]


async def test_a_request_may_come_byte_by_byte(running: Running) -> None:
    """TCP keeps no boundaries."""
    client = await running.connect()
    for (
        byte
    ) in b"POST /issue HTTP/1.1\r\nHost: tailbone\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n":
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.response()).status == 200


async def test_one_empty_line_before_a_request_is_ignored(running: Running) -> None:
    """RFC 9112 section 2.2; a second one is no request."""
    client = await running.connect()
    assert (await client.ask(b"\r\n" + GET)).status == 200
    client.send(b"\r")
    assert (await client.ask(b"\n" + GET)).status == 200
    assert (await client.ask(b"\r\n\r\n" + GET)).status == 400


async def test_a_second_empty_line_is_no_request(running: Running) -> None:
    """Also when it comes later than the first."""
    client = await running.connect()
    await arrived(running, client, b"\r\n")
    assert (await client.ask(b"\r\n" + GET)).status == 400


async def test_a_repeated_head_is_not_taken_for_another(running: Running) -> None:
    """What is remembered of the last request counts for the very same bytes only."""
    client = await running.connect()
    statuses = [
        (await client.ask(request)).status
        for request in (
            ISSUE,
            ISSUE.replace(b"tailbone", b"evilbone"),
            ISSUE,
            ISSUE.replace(b"/issue", b"/Issue"),
        )
    ]
    assert statuses == [200, 421, 200, 404]


async def test_every_answer_has_a_date(running: Running) -> None:
    """RFC 9110 section 6.6.1: caches of the JWKS count from it."""
    answer = await running.ask(GET)
    assert answer.fields["Date"].endswith(" GMT")


# --- the end of a connection


@pytest.mark.parametrize(
    ("request_", "connection"),
    [
        (b"GET /_healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "close"),
        (b"GET /_healthz HTTP/1.0\r\n\r\n", "close"),
        (b"GET /nowhere HTTP/1.0\r\n\r\n", "close"),
    ],
)
async def test_a_connection_that_closes_says_so(running: Running, request_: bytes, connection: str) -> None:
    """By request, and for HTTP/1.0; the answer comes whole, then the end."""
    client = await running.connect()
    answer = await client.ask(request_)
    assert answer.fields["Connection"] == connection
    assert await client.rest() == b""


async def test_http_1_0_may_stay(running: Running) -> None:
    """Where it asks to, and it is told."""
    client = await running.connect()
    for _ in range(2):
        answer = await client.ask(b"GET /_healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (answer.status, answer.fields["Connection"]) == (200, "keep-alive")


async def test_a_client_that_ends_its_side_is_still_answered(running: Running) -> None:
    """``printf … | nc`` sends and ends; all it asked for is answered before the connection ends."""
    client = await running.connect()
    client.send(GET + ISSUE)
    client.end()
    assert [(await client.response()).status for _ in range(2)] == [200, 200]
    assert await client.rest() == b""


@pytest.mark.parametrize(
    "part",
    [
        b"G",
        b"GET /_healthz HTTP/1.1\r\n",
        b"POST /issue HTTP/1.1\r\nHost: tailbone\r\nContent-Length: 5\r\n\r\nhi",
    ],
)
async def test_a_request_that_ends_early_is_malformed(running: Running, world: World, part: bytes) -> None:
    """Half a request is none, whatever it might have become."""
    client = await running.connect()
    client.send(part)
    client.end()
    answer = await client.response()
    assert (answer.status, answer.json["error"], answer.fields["Connection"]) == (
        400,
        "malformed_request",
        "close",
    )
    assert await client.rest() == b""
    assert world.audit.lines == []


@pytest.mark.parametrize("part", [b"", GET])
async def test_a_client_that_leaves_between_requests_leaves_no_trace(
    running: Running, world: World, part: bytes
) -> None:
    """An end where a request may begin is no error."""
    client = await running.connect()
    client.send(part)
    client.end()
    await client.rest()
    await running.until(lambda: not running.server.connections)
    assert world.log.lines == []


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET /_healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * HEAD_LIMIT,
        b"POST /issue HTTP/1.1\r\nHost: tailbone\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /issue HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n",
    ],
    ids=["TLS", "bare LF", "too long", "bad chunk", "two lengths"],
)
async def test_after_a_malformed_request_nothing_is_read_as_one(
    running: Running, world: World, request_: bytes
) -> None:
    """Where the next begins is not known: what follows is thrown away, and the connection ends."""
    client = await running.connect()
    client.send(request_ + ISSUE)
    answer = await client.response()
    assert (answer.status, answer.json["error"], answer.fields["Connection"]) == (
        400,
        "malformed_request",
        "close",
    )
    assert await client.rest() == b""
    assert (world.asked_for, world.audit.lines) == ([], [])


async def test_an_answer_survives_what_is_sent_on(running: Running) -> None:
    """A client that sends its long body to the end still reads why it was refused."""
    client = await running.connect()
    client.send(b"POST /issue HTTP/1.1\r\nHost: tailbone\r\nContent-Length: 500000\r\n\r\n")
    for _ in range(10):
        client.send(b"x" * 50_000)
        await client.writer.drain()
    answer = await client.response()
    assert (answer.status, answer.json["error"]) == (413, "body_too_large")
    client.end()
    assert await client.rest() == b""
    await running.until(lambda: not running.server.connections)


async def test_what_is_sent_on_is_not_read_for_ever(running: Running) -> None:
    """After a mebibyte the connection is cut."""
    client = await running.connect()
    client.send(b"POST /issue HTTP/1.1\r\nHost: tailbone\r\nContent-Length: 500000000\r\n\r\n")
    assert (await client.response()).status == 413
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        for _ in range(LINGER_LIMIT // 50_000 + 100):
            client.send(b"x" * 50_000)
            await client.writer.drain()
    await running.until(lambda: not running.server.connections)


# --- bodies


@pytest.mark.parametrize("size", [0, 1, 16384])
async def test_a_body_is_ignored(running: Running, size: int) -> None:
    """Up to 16 KiB of anything, whole or in chunks."""
    client = await running.connect()
    body = b"\xff" * size
    head = b"POST /issue HTTP/1.1\r\nHost: tailbone\r\n"
    whole = await client.ask(head + b"Content-Length: %d\r\n\r\n" % size + body)
    chunk = b"%x\r\n%b\r\n" % (size, body) if size else b""
    chunked = await client.ask(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n")
    assert (whole.status, chunked.status) == (200, 200)


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 16385\r\n\r\n",
        b"Content-Length: 99999999999999999999999\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n4001\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n4000\r\n" + b"x" * 0x4000 + b"\r\n1\r\n",
    ],
)
async def test_a_longer_body_is_refused_before_it_comes(running: Running, world: World, rest: bytes) -> None:
    """413 as soon as the length is known, and the connection ends."""
    client = await running.connect()
    answer = await client.ask(b"POST /issue HTTP/1.1\r\nHost: tailbone\r\n" + rest)
    assert (answer.status, answer.json["error"], answer.fields["Connection"]) == (
        413,
        "body_too_large",
        "close",
    )
    assert await client.rest() == b""
    assert world.asked_for == []


@pytest.mark.parametrize(
    "rest",
    [b"Content-Length: 16385\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n4001\r\n"],
    ids=["announced", "chunked"],
)
async def test_a_path_that_does_not_exist_is_told_before_a_longer_body(running: Running, rest: bytes) -> None:
    """404, without content for HEAD, and the connection ends: the rest of the body is not read."""
    client = await running.connect()
    client.send(b"HEAD /nowhere HTTP/1.1\r\nHost: tailbone\r\n" + rest)
    status_line, *fields = (await client.rest()).split(b"\r\n")
    assert status_line == b"HTTP/1.1 404 Not Found"
    assert b"Connection: close" in fields
    assert fields[-2:] == [b"", b""]


async def test_a_client_that_waits_for_100_continue_gets_it(running: Running) -> None:
    """RFC 9110 section 10.1.1: then it sends its body, and the connection goes on."""
    client = await running.connect()
    client.send(
        b"POST /issue HTTP/1.1\r\nHost: tailbone\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    )
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await client.ask(b"hi")).status == 200
    assert (await client.ask(GET)).status == 200


async def test_a_body_that_is_too_long_is_not_asked_for(running: Running) -> None:
    """413 instead of 100."""
    answer = await running.ask(
        b"POST /issue HTTP/1.1\r\nHost: tailbone\r\nContent-Length: 99999\r\nExpect: 100-continue\r\n\r\n"
    )
    assert answer.status == 413


# --- how long anything may last


@pytest.mark.parametrize(
    "parts",
    [
        [b"G"],
        [b"POST /issue HTTP/1.1\r\n", b"Host: tail"],
        [b"POST /issue HTTP/1.1\r\nHost: tailbone\r\nContent-Length: 5\r\n\r\n", b"h", b"e"],
        [b"POST /issue HTTP/1.1\r\nHost: tailbone\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", b"h", b"e"],
    ],
    ids=["head", "slow head", "slow body", "slow chunk"],
)
async def test_a_request_has_ten_seconds_from_its_first_byte(
    running: Running, world: World, parts: list[bytes]
) -> None:
    """However it trickles in; then it is dropped with a 408 in the form of every error."""
    client = await running.connect()
    await arrived(running, client, parts[0])
    (connection,) = running.server.connections
    deadline = connection.deadline
    assert 0 < deadline - now() <= REQUEST_TIME_S == 10.0
    for part in parts[1:]:
        client.send(part)
        await asyncio.sleep(0.01)
    assert connection.deadline == deadline, "later bytes give no more time"
    running.server.expire(deadline - 0.001)
    await client.writer.drain()
    assert not client.reader.at_eof()
    running.server.expire(deadline)
    answer = await client.response()
    assert (answer.status, answer.json) == (
        408,
        {"error": "request_timeout", "message": "the request was not complete after 10 s"},
    )
    assert await client.rest() == b""
    assert world.asked_for == []


async def test_an_idle_connection_has_two_minutes(running: Running) -> None:
    """Then it ends without a word; also one on which nothing ever came."""
    silent, used = await running.connect(), await running.connect()
    await used.ask(GET)
    await running.until(lambda: len(running.server.connections) == 2)
    deadlines = [connection.deadline for connection in running.server.connections]
    assert all(0 < deadline - now() <= IDLE_TIME_S == 120.0 for deadline in deadlines)
    running.server.expire(min(deadlines) - 0.001)
    assert len(running.server.connections) == 2
    running.server.expire(max(deadlines))
    assert (await silent.rest(), await used.rest()) == (b"", b"")


async def test_each_request_has_its_own_ten_seconds(running: Running) -> None:
    """A connection in use lives on, whatever its age."""
    client = await running.connect()
    for _ in range(3):
        await client.ask(GET)
        running.server.expire(now() + REQUEST_TIME_S + 1)
    assert (await client.ask(GET)).status == 200


async def test_a_client_that_reads_nothing_is_cut_off(running: Running) -> None:
    """It asks and asks and leaves the answers lying: neither memory nor a task is kept for it."""
    client = await running.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    (connection,) = await one_connection(running)
    while connection.writable:
        client.send(GET * 100)
        await asyncio.sleep(0.001)
    await running.until(lambda: connection.deadline - now() <= WRITE_TIME_S)
    running.server.expire(connection.deadline)
    await running.until(lambda: not running.server.connections)


async def test_what_is_sent_ahead_is_held_up_to_a_limit(running: Running, world: World) -> None:
    """While an answer is made, no more than the buffer is read from a client that goes on sending."""
    gated = world.gate()
    client = await running.connect()
    (connection,) = await one_connection(running)
    client.send(ISSUE)
    await gated.asked.wait()
    client.send(GET * (16 * BUFFER_LIMIT // len(GET)))
    await running.until(lambda: len(connection.recv_buffer) >= BUFFER_LIMIT)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert len(connection.recv_buffer) < 6 * BUFFER_LIMIT
    gated.gate.set()
    for _ in range(16 * BUFFER_LIMIT // len(GET)):
        assert (await client.response()).status == 200


async def test_the_rest_of_a_refused_request_has_two_seconds(running: Running) -> None:
    """A client that neither reads nor ends is cut off."""
    client = await running.connect()
    await client.ask(b"nonsense\r\n\r\n")
    (connection,) = running.server.connections
    assert 0 < connection.deadline - now() <= LINGER_TIME_S
    running.server.expire(connection.deadline)
    await running.until(lambda: not running.server.connections)


async def test_others_are_served_while_one_pipelines(running: Running) -> None:
    """Each answer is one turn: a client that sends thousands ahead does not stop another's."""
    greedy, modest = await running.connect(), await running.connect()
    greedy.send(ISSUE * 1000)
    await greedy.response()
    await modest.ask(GET)
    assert len(running.world.audit.lines) < 40


async def test_a_client_that_is_gone_is_not_waited_for(running: Running, world: World) -> None:
    """Its connection ends while its token is being signed."""
    gated = world.gate()
    client = await running.connect()
    client.send(ISSUE)
    await gated.asked.wait()
    client.writer.transport.abort()
    gated.gate.set()
    await running.until(lambda: not running.server.connections)
    assert (await running.ask(GET)).status == 200


async def test_plain_sockets_have_no_name(running: Running, world: World) -> None:
    """Who connects without a name is for identify to refuse; here it is only passed on."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, running.path)
        await loop.sock_sendall(sock, ISSUE)
        assert (await loop.sock_recv(sock, 12)) == b"HTTP/1.1 200"
    assert not world.asked_for[0]


async def one_connection(running: Running) -> list:
    """The connections, once there is one."""
    await running.until(lambda: bool(running.server.connections))
    return list(running.server.connections)
