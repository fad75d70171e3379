"""One connection: how requests follow each other, and how long anything may last."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tailbone.server import app, refusals
from tailbone.server.request_head import HEAD_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from conftest import Running, World

GET = b"GET /_healthz HTTP/1.1\r\nHost: x\r\n\r\n"
ISSUE = b"POST /issue HTTP/1.1\r\nHost: tailbone\r\n\r\n"
BAD_CHUNKS = {
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "no digits": b"xyz\r\nhello\r\n0\r\n\r\n",
    "a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "below zero": b"-1\r\nhello\r\n0\r\n\r\n",
    "an underscore": b"1_0\r\n",
    "a space before": b" 5\r\nhello\r\n0\r\n\r\n",
    "a space after": b"5 \r\nhello\r\n0\r\n\r\n",
    "seventeen digits": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    "a bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "a bare CR after the size": b"5\rhello\r\n0\r\n\r\n",
    "a bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "an extension without a name": b"5;\r\nhello\r\n0\r\n\r\n",
    "an open quotation mark": b'5;a="b\r\nhello\r\n0\r\n\r\n',
    "more data than the size": b"5\r\nhello!\r\n0\r\n\r\n",
    "data without its end": b"5\r\nhello0\r\n\r\n",
    "a trailer without a colon": b"0\r\nX\r\n\r\n",
    "a folded trailer": b"0\r\nX: 1\r\n 2\r\n\r\n",
    "a request for a trailer": b"0\r\nGET / HTTP/1.1\r\n\r\n",
    "a NUL": b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n",
}

HEALTH = b'{"ok":true,"version":"1.2.3","commit":"abc1234"}'


@pytest.fixture
async def hurried(
    start: Callable[[World], AbstractAsyncContextManager[Running]],
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Running]:
    """A server that gives a request 0.2 s in place of its 10 s."""
    assert app.REQUEST_TIME_S == 10.0
    monkeypatch.setattr(app, "REQUEST_TIME_S", 0.2)
    async with start(world) as running:
        yield running


# --- one after the other


async def test_a_connection_serves_many_requests(running: Running) -> None:
    """HTTP/1.1 stays open."""
    client = await running.connect()
    for _ in range(3):
        answer = await client.ask(GET)
        assert (answer.status, answer.body, answer.fields["Connection"]) == (200, HEALTH, "keep-alive")


async def test_pipelined_requests_are_answered_in_order(running: Running) -> None:
    """Also good and bad ones together, with bodies between them."""
    client = await running.connect()
    client.send(
        GET
        + b"POST /issue HTTP/1.1\r\nHost: tailbone\r\nContent-Length: 5\r\n\r\nhello"
        + b"GET /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
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


async def test_an_empty_line_before_a_request_is_refused(running: Running) -> None:
    """Sanic does not skip it, as RFC 9112 section 2.2 would allow."""
    client = await running.connect()
    answer = await client.ask(b"\r\n" + GET)
    assert (answer.status, answer.json["error"]) == (400, "malformed_request")


async def test_waiting_connections_are_accepted_together(running: Running) -> None:
    """One in each turn of the event loop would wait for seconds behind hundreds of busy ones."""
    with ExitStack() as stack:
        for _ in range(256):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            sock.connect(running.path)
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(running.server.connections) == 256


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
async def test_a_request_that_ends_early_is_malformed(
    running: Running,
    world: World,
    part: bytes,
) -> None:
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
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET issue HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /_healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * HEAD_LIMIT,
        b"POST /issue HTTP/1.1\r\nHost: tailbone\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /issue HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n",
    ],
    ids=["TLS", "bare LF", "no ASCII", "no URL", "too long", "bad chunk", "two lengths"],
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
    assert (whole.fields["Connection"], chunked.fields["Connection"]) == ("keep-alive", "close")


async def test_a_body_of_many_chunks_does_not_delay_others(running: Running) -> None:
    """A request that arrives after thousands of chunks is answered before all of them are read."""
    slow, other = await running.connect(), await running.connect()
    slow.send(b"POST /issue HTTP/1.1\r\nHost: tailbone\r\nTransfer-Encoding: chunked\r\n\r\n")
    slow.send(5000 * b"1\r\na\r\n" + b"0\r\n\r\n")
    late = asyncio.create_task(slow.response())
    assert (await other.ask(b"GET /_healthz HTTP/1.1\r\nHost: tailbone\r\n\r\n")).status == 200
    assert not late.done()
    assert (await late).status == 200


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 16385\r\n\r\n",
        b"Content-Length: 99999999999999999999999\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n4001\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n4000\r\n" + b"x" * 0x4000 + b"\r\n1\r\n",
    ],
)
async def test_a_longer_body_is_refused(running: Running, world: World, rest: bytes) -> None:
    """413, and the connection ends."""
    client = await running.connect()
    answer = await client.ask(b"POST /issue HTTP/1.1\r\nHost: tailbone\r\n" + rest)
    assert (answer.status, answer.json["error"]) == (413, "body_too_large")
    assert await client.rest() == b""
    assert world.asked_for == []


@pytest.mark.parametrize(
    "rest",
    [b"Content-Length: 16385\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n4001\r\n"],
    ids=["announced", "chunked"],
)
async def test_a_path_that_does_not_exist_is_told_before_a_longer_body(running: Running, rest: bytes) -> None:
    """404, without content for HEAD, and then the connection ends: the rest of the body is not read."""
    client = await running.connect()
    client.send(b"HEAD /nowhere HTTP/1.1\r\nHost: tailbone\r\n" + rest)
    status_line, *fields = (await client.rest()).split(b"\r\n")
    assert status_line == b"HTTP/1.1 404 Not Found"
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


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
async def test_what_follows_chunks_is_never_taken_for_a_request(
    running: Running, world: World, chunks: bytes
) -> None:
    """Sanic reads some bad framing as good: whatever it makes of it, the connection ends with the answer."""
    client = await running.connect()
    client.send(
        b"PUT /issue HTTP/1.1\r\nHost: tailbone\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + ISSUE
    )
    client.end()
    assert (await client.response()).status in (400, 405)
    assert await client.rest() == b""
    assert world.audit.lines == []


# --- how long anything may last


@pytest.mark.parametrize("part", [b"", b"G", ISSUE[:-2]], ids=["silent", "one byte", "no end"])
async def test_a_connection_has_ten_seconds_for_its_first_request(
    hurried: Running,
    world: World,
    part: bytes,
) -> None:
    """A silent one ends without a word, half a request with a 408."""
    client = await hurried.connect()
    client.send(part)
    if part:
        answer = await client.response()
        assert (answer.status, answer.json["error"]) == (408, "request_timeout")
    assert await client.rest() == b""
    assert world.asked_for == []


async def test_a_body_that_stalls_ends_its_connection(hurried: Running) -> None:
    """With a 408; the rest is not waited for."""
    client = await hurried.connect()
    answer = await client.ask(b"POST /issue HTTP/1.1\r\nHost: tailbone\r\nContent-Length: 5\r\n\r\nhi")
    assert (answer.status, answer.json["error"]) == (408, "request_timeout")
    assert await client.rest() == b""


async def test_a_connection_that_was_used_may_be_idle_for_two_minutes(hurried: Running) -> None:
    """Its first request has shown that somebody is there."""
    assert app.IDLE_TIME_S == 120.0
    silent, used = await hurried.connect(), await hurried.connect()
    await used.ask(GET)
    assert await silent.rest() == b""
    assert (await used.ask(GET)).status == 200


async def test_a_client_that_reads_nothing_is_cut_off(hurried: Running) -> None:
    """It asks and asks and leaves the answers unread: neither memory nor a task is kept for it."""
    client = await hurried.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    client.send(GET * 50_000)
    await hurried.until(lambda: bool(hurried.server.connections))
    await hurried.until(lambda: not hurried.server.connections)


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


# --- refusals


async def test_a_connection_ends_with_its_hundredth_refusal(running: Running) -> None:
    """A client that is refused so often has to connect again."""
    client = await running.connect()
    wrong = ISSUE.replace(b"tailbone", b"evil.example")
    for _ in range(refusals.MOST_REFUSALS - 1):
        assert (await client.ask(wrong)).fields["Connection"] == "keep-alive"
    assert (await client.ask(wrong)).fields["Connection"] == "close"
    assert await client.rest() == b""


async def test_another_process_is_not_a_caller(running: Running, world: World) -> None:
    """It can copy a peer's name from /proc/net/unix, but not the process that the kernel names."""
    script = """
import socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.bind(sys.argv[1].replace("@", chr(0)))
peer.connect(sys.argv[2].replace("@", chr(0)))
peer.sendall(b"POST /issue HTTP/1.1\\r\\nHost: tailbone\\r\\n\\r\\n")
print(peer.makefile("rb").read().decode())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        f"@tailnet/{os.getpid():016x}/http/100.64.0.2:1/other",
        running.path.replace("\0", "@"),
        stdout=asyncio.subprocess.PIPE,
    )
    answer, _ = await process.communicate()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"unknown_caller" in answer
    assert (world.asked_for, world.audit.lines) == ([], [])
