"""Hostile peers: each takes what it can from the server until its time is up."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.endurance.scene import Place

    Address: TypeAlias = tuple[str, int]

Peer: TypeAlias = Callable[["Sequence[Place]", Counter[str]], Coroutine[Any, Any, None]]
"""Plays until it is cancelled, and counts what it did."""

SHARE: Final = 256
"""How many connections the server takes from one address (a quarter of its maxConnections)."""

_PAUSE_S: Final = 0.05
_BYTE_EACH_S: Final = 1.0


async def play(places: Sequence[Place], name: str, seconds: float) -> dict[str, int]:
    """Play one peer, and return what it did."""
    done: Counter[str] = Counter()
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await PEERS[name](places, done)
    return dict(done)


# --- what they share


async def _crowd(count: int, one: Callable[[int], Awaitable[None]], done: Counter[str]) -> None:
    """Let ``count`` go on doing ``one`` (given their number), whatever happens to their connections."""

    async def again(number: int) -> None:
        while True:
            try:
                await one(number)
                done["ended"] += 1
            except OSError:
                done["cut off"] += 1
            await asyncio.sleep(_PAUSE_S)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(again(number))


@asynccontextmanager
async def _connected(address: Address, *, receive: int = 0) -> AsyncIterator[socket.socket]:
    """Connect; ``receive`` is how much the kernel may take in unread, in bytes."""
    with socket.socket() as sock:
        sock.setblocking(False)
        if receive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        await asyncio.get_running_loop().sock_connect(sock, address)
        yield sock


async def _send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)
    await asyncio.sleep(0)  # sock_sendall lets nobody else run while the kernel takes everything


async def _receive(sock: socket.socket) -> bytes:
    """Receive something; nothing at the end."""
    return await asyncio.get_running_loop().sock_recv(sock, 1 << 16)


async def _read_to_the_end(sock: socket.socket) -> None:
    while await _receive(sock):
        pass


async def _read_answers(sock: socket.socket, count: int) -> None:
    """Receive until ``count`` status lines have come.

    Raises:
        ConnectionError: the server ended the connection before.
    """
    seen, last = 0, b""
    while seen < count:
        data = await _receive(sock)
        if not data:
            raise ConnectionError("ended by the server")
        seen += (last + data).count(b"HTTP/1.1 ")
        last = data[-8:]


def _request(host: str, *fields: str, method: str = "POST", target: str = "/issue") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode()


# --- HTTP


async def _slowly(place: Place, beginning: bytes, done: Counter[str]) -> None:
    """Send a request one byte a second, until the server has had enough."""

    async def one(_: int) -> None:
        async with _connected(place.issuer) as sock:
            await _send(sock, beginning)
            while True:
                await asyncio.sleep(_BYTE_EACH_S)
                await _send(sock, b"a")
                done["bytes"] += 1

    await _crowd(SHARE, one, done)


async def slow_heads(places: Sequence[Place], done: Counter[str]) -> None:
    """Slow loris: the head never ends."""
    await _slowly(places[0], _request(places[0].host)[:-2] + b"X-Slow: ", done)


async def slow_bodies(places: Sequence[Place], done: Counter[str]) -> None:
    """The head is there at once, the body never."""
    await _slowly(places[0], _request(places[0].host, "Content-Length: 10000"), done)


async def _unread(places: Sequence[Place], request: bytes, connections: int, done: Counter[str]) -> None:
    """Send requests ahead, and read nothing."""

    async def one(number: int) -> None:
        async with _connected(places[number % len(places)].issuer, receive=4096) as sock:
            done["connections"] += 1
            while True:
                await _send(sock, 100 * request)

    await _crowd(connections, one, done)


async def unread_tokens(places: Sequence[Place], done: Counter[str]) -> None:
    """Never reads its tokens."""
    await _unread(places[:1], _request(places[0].host), SHARE, done)


async def unread_jwks(places: Sequence[Place], done: Counter[str]) -> None:
    """Never reads the JWKS."""
    await _unread(places[:1], _jwks_request(places[0]), SHARE, done)


async def unread_jwks_from_four(places: Sequence[Place], done: Counter[str]) -> None:
    """980 connections from four addresses, which leave places free for the honest caller's."""
    await _unread(places, _jwks_request(places[0]), 980, done)


def _jwks_request(place: Place) -> bytes:
    return _request(place.host, method="GET", target="/.well-known/jwks.json")


async def pipelining(places: Sequence[Place], done: Counter[str]) -> None:
    """Sends a hundred requests ahead on each connection, and reads all answers."""
    place = places[0]
    ahead = 100

    async def one(_: int) -> None:
        async with _connected(place.issuer) as sock:
            while True:
                await _send(sock, ahead * _request(place.host))
                await _read_answers(sock, ahead)
                done["requests"] += ahead

    await _crowd(64, one, done)


async def busy(places: Sequence[Place], done: Counter[str]) -> None:
    """Asks for tokens on all the connections that it may have, as fast as it can."""
    place = places[0]

    async def one(_: int) -> None:
        async with _connected(place.issuer) as sock:
            while True:
                await _send(sock, _request(place.host))
                await _read_answers(sock, 1)
                done["requests"] += 1

    await _crowd(SHARE, one, done)


async def many_connections(places: Sequence[Place], done: Counter[str]) -> None:
    """Opens 2,000 connections, and asks for one token on each that it gets."""
    place = places[0]

    async def one(number: int) -> None:
        async with _connected(place.issuers[number % 2]) as sock:
            await _send(sock, _request(place.host))
            done["connections"] += 1
            await _read_to_the_end(sock)

    await _crowd(2000, one, done)


async def silent_connections(places: Sequence[Place], done: Counter[str]) -> None:
    """Opens connections to both ports, and says nothing."""
    place = places[0]

    async def one(number: int) -> None:
        async with _connected((place.issuer, place.admin)[number % 2]) as sock:
            done["connections"] += 1
            await _read_to_the_end(sock)

    await _crowd(2 * SHARE, one, done)


async def churn(places: Sequence[Place], done: Counter[str]) -> None:
    """Opens a connection for each token, and closes it first."""
    place = places[0]

    async def one(_: int) -> None:
        async with _connected(place.issuer) as sock:
            await _send(sock, _request(place.host))
            await _read_answers(sock, 1)
            done["connections"] += 1

    await _crowd(SHARE, one, done)


async def resets(places: Sequence[Place], done: Counter[str]) -> None:
    """Resets its connections: at once, within a request, and when the answer is on its way."""
    place = places[0]
    request = _request(place.host)

    async def one(number: int) -> None:
        async with _connected(place.issuer) as sock:
            await _send(sock, request[: number % 3 * len(request) // 2])
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            done["connections"] += 1

    await _crowd(64, one, done)


async def refusals(places: Sequence[Place], done: Counter[str]) -> None:
    """Sends requests with a wrong Host, an unknown path, a page's Origin and a malformed head."""
    place = places[0]
    requests = [
        _request("elsewhere.example"),
        _request(place.host, target="/unknown"),
        _request(place.host, "Origin: https://page.example"),
        _request(place.host, "X Y: z"),
    ]

    async def one(number: int) -> None:
        async with _connected(place.issuer) as sock:
            await _send(sock, 10 * requests[number % 4])
            await _read_answers(sock, 10)
            done["requests"] += 10

    await _crowd(64, one, done)


async def long_heads(places: Sequence[Place], done: Counter[str]) -> None:
    """Sends heads of nearly 8 KB, each another one, so that none is known."""
    place = places[0]

    async def one(_: int) -> None:
        async with _connected(place.issuer) as sock:
            while True:
                fields = [f"X-{number}: {random.random()}" for number in range(280)]
                await _send(sock, _request(place.host, *fields))
                await _read_answers(sock, 1)
                done["requests"] += 1

    await _crowd(64, one, done)


async def expect(places: Sequence[Place], done: Counter[str]) -> None:
    """Asks to be asked for a body; then sends it, or half of it, or none."""
    place = places[0]

    async def one(number: int) -> None:
        async with _connected(place.issuer) as sock:
            await _send(sock, _request(place.host, "Expect: 100-continue", "Content-Length: 8000"))
            await _receive(sock)
            await _send(sock, bytes(number % 3 * 4000))
            done["requests"] += 1
            await _read_to_the_end(sock)

    await _crowd(SHARE, one, done)


async def half_closed(places: Sequence[Place], done: Counter[str]) -> None:
    """Ends its side after a request, or after half of one, and waits."""
    place = places[0]
    request = _request(place.host)

    async def one(number: int) -> None:
        async with _connected(place.issuer) as sock:
            await _send(sock, request[: len(request) // (1 + number % 2)])
            sock.shutdown(socket.SHUT_WR)
            done["connections"] += 1
            await _read_to_the_end(sock)

    await _crowd(SHARE, one, done)


async def chunks(places: Sequence[Place], done: Counter[str]) -> None:
    """Sends a body of small chunks that does not end."""
    place = places[0]

    async def one(_: int) -> None:
        async with _connected(place.issuer) as sock:
            await _send(sock, _request(place.host, "Transfer-Encoding: chunked"))
            done["connections"] += 1
            while True:
                await _send(sock, 1000 * b"1\r\na\r\n")

    await _crowd(64, one, done)


async def h2c(places: Sequence[Place], done: Counter[str]) -> None:
    """Speaks HTTP/2 to the issuer, with an upgrade and without, and TLS."""
    place = places[0]
    upgrade = _request(place.host, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: ")
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
    beginnings = [upgrade, _PREFACE, hello]

    async def one(number: int) -> None:
        async with _connected(place.issuer) as sock:
            await _send(sock, beginnings[number % 3])
            done["connections"] += 1
            await _receive(sock)

    await _crowd(64, one, done)


# --- gRPC, by its frames (RFC 9113)

_HEADERS, _RST_STREAM, _SETTINGS, _PING, _CONTINUATION = 0x1, 0x3, 0x4, 0x6, 0x9
_END_STREAM, _END_HEADERS = 0x1, 0x4


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b"")


def _literal(name: bytes, value: bytes) -> bytes:
    """Return a field line that no table keeps (RFC 7541 section 6.2.2); both parts have up to 126 bytes."""
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


def _call(method: str) -> bytes:
    """Return the field block of a call."""
    return b"\x83\x86" + b"".join(
        _literal(name, value)
        for name, value in (
            (b":path", f"/proto.AdminService/{method}".encode()),
            (b":authority", b"tailbone"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )


async def _frames(
    place: Place, frames: Callable[[], AsyncIterator[bytes]], connections: int, done: Counter[str]
) -> None:
    """Send frames to the admin API without end, and read only what the kernel takes in."""

    async def one(_: int) -> None:
        async with _connected(place.admin) as sock:
            await _send(sock, _PREFACE)
            reading = asyncio.create_task(_read_to_the_end(sock))
            try:
                async for some in frames():
                    await _send(sock, some)
                    done["sent KB"] += len(some) >> 10
            finally:
                reading.cancel()
                with suppress(OSError, asyncio.CancelledError):
                    await reading

    await _crowd(connections, one, done)


async def grpc_resets(places: Sequence[Place], done: Counter[str]) -> None:
    """Begins calls and resets them at once (CVE-2023-44487)."""

    async def frames() -> AsyncIterator[bytes]:
        block = _call("ListKeys")
        for first in itertools.count(1, 200):
            yield b"".join(
                _frame(_HEADERS, _END_HEADERS, stream, block) + _frame(_RST_STREAM, 0, stream, b"\0\0\0\x08")
                for stream in range(first, first + 200, 2)
            )

    await _frames(places[0], frames, 16, done)


async def grpc_continuations(places: Sequence[Place], done: Counter[str]) -> None:
    """Sends a head that never ends (CVE-2024-27316)."""

    async def frames() -> AsyncIterator[bytes]:
        yield _frame(_HEADERS, 0, 1, _call("ListKeys"))
        while True:
            yield _frame(_CONTINUATION, 0, 1, 100 * _literal(b"x", 100 * b"x"))

    await _frames(places[0], frames, 16, done)


async def grpc_pings(places: Sequence[Place], done: Counter[str]) -> None:
    """Sends pings and settings, each of which wants an answer (CVE-2019-9512, CVE-2019-9515)."""

    async def frames() -> AsyncIterator[bytes]:
        while True:
            yield 500 * (_frame(_PING, 0, 0, bytes(8)) + _frame(_SETTINGS, 0, 0, b""))

    await _frames(places[0], frames, 16, done)


async def _calls(
    place: Place,
    call: Callable[[Any, int], Awaitable[Any]],
    done: Counter[str],
    *,
    connections: int = 32,
    streams: int = 32,
) -> None:
    """Call the admin API without end; ``call`` is given the stub and the caller's number."""
    import grpc.aio

    from tailbone.admin._proto import admin_pb2_grpc

    target = "{}:{}".format(*place.admin)
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(connections)]
    stubs = [admin_pb2_grpc.AdminServiceStub(channel) for channel in channels]  # type: ignore[no-untyped-call]

    async def one(number: int) -> None:
        try:
            await call(stubs[number % connections], number)
            done["OK"] += 1
        except grpc.aio.AioRpcError as error:
            done[error.code().name] += 1

    async def again(number: int) -> None:
        while True:
            await one(number)

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(connections * streams):
                group.create_task(again(number))
    finally:
        for channel in channels:
            await channel.close()


async def grpc_calls(places: Sequence[Place], done: Counter[str]) -> None:
    """Asks for keys and status on all streams of 32 connections."""
    from tailbone.admin._proto import admin_pb2 as pb

    async def call(stub: Any, number: int) -> None:
        if number % 2:
            await stub.ListKeys(pb.ListKeysRequest())
        else:
            await stub.GetStatus(pb.GetStatusRequest())

    await _calls(places[0], call, done)


async def generate(places: Sequence[Place], done: Counter[str]) -> None:
    """Wants keys, as large as they can be, and others."""
    from tailbone.admin._proto import admin_pb2 as pb

    async def call(stub: Any, number: int) -> None:
        size = (2048, 3072, 4096)[number % 3]
        algorithm = ("RS256", "ES256")[number % 2]
        await stub.GenerateNewKeys(pb.GenerateNewKeysRequest(size=size, algorithm=algorithm))

    await _calls(places[0], call, done, connections=4)


async def large_metadata(places: Sequence[Place], done: Counter[str]) -> None:
    """Sends metadata that is just allowed, and metadata that is far too large, with a request of 60 KB."""
    from tailbone.admin._proto import admin_pb2 as pb

    async def call(stub: Any, number: int) -> None:
        metadata = (("x", "x" * (7000 if number % 2 else 60_000)),)
        await stub.RemoveKey(pb.RemoveKeyRequest(key_id="x" * 60_000), metadata=metadata)

    await _calls(places[0], call, done)


PEERS: Final[dict[str, Peer]] = {
    peer.__name__: peer
    for peer in (
        slow_heads,
        slow_bodies,
        unread_tokens,
        unread_jwks,
        pipelining,
        busy,
        many_connections,
        silent_connections,
        churn,
        resets,
        refusals,
        long_heads,
        expect,
        half_closed,
        chunks,
        h2c,
        grpc_resets,
        grpc_continuations,
        grpc_pings,
        grpc_calls,
        large_metadata,
        generate,
        unread_jwks_from_four,
    )
}
