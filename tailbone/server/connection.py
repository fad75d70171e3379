"""One HTTP connection: bytes in, answers out, on Sanic's protocol; every time limit of a connection."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

from sanic.http import Http, Stage
from sanic.server.protocols.http_protocol import HttpProtocol

from tailbone.errors import MalformedRequestError, RequestError, RequestTimeoutError
from tailbone.server.strict_http import Body, Head, head_end, parse_head

if TYPE_CHECKING:
    from tailbone.server.endpoints import Endpoints, Response

REQUEST_TIME_S: Final = 10.0
"""How long a request may take to arrive, from its first byte to its last."""

IDLE_TIME_S: Final = 120.0
"""How long a connection may stay open between requests."""

WRITE_TIME_S: Final = 10.0
"""How long a client may leave answers unread before it is cut off."""

LINGER_TIME_S: Final = 2.0
"""How long the rest of a refused request is read and thrown away (RFC 9112 section 9.6)."""

BUFFER_LIMIT: Final = 64 * 1024
"""How much of what a client sends ahead is held, in bytes."""

_LINGER_LIMIT: Final = 1024 * 1024
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NEVER: Final = float("inf")
_STATUS_LINES: Final = {
    status: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus
}


class _EndOfStreamError(Exception):
    """The client ended its side where a request might have begun."""


class Exchange(Http):  # type: ignore[misc]  # Sanic's metaclass hides its types
    """Requests and answers of one connection, one after the other.

    Takes the place of Sanic's parser, which guesses, and of its request and response objects, which cost more than
    all else that a token needs besides its signature. What stays Sanic's: sockets, buffer, backpressure, closing.
    """

    protocol: Connection

    async def http1(self) -> None:
        """Serve requests until one side wants no more."""
        protocol = self.protocol
        try:
            while self.keep_alive:
                try:
                    head = await self._request()
                except RequestError as error:
                    self._refuse(error)
                    return
                self.stage = Stage.HANDLER
                protocol.deadline = _NEVER
                response = await protocol.endpoints.answer(head, protocol.peername)
                self.keep_alive = head.keep_alive and not protocol.draining
                await self._respond(head, response)
                if self.recv_buffer:
                    # A pipelining client waits its turn like everybody else.
                    await asyncio.sleep(0)
        except _EndOfStreamError:
            return

    async def _request(self) -> Head:
        """Receive one whole request."""
        protocol, buffer = self.protocol, self.recv_buffer
        self.stage = Stage.IDLE
        protocol.deadline = protocol.loop.time() + IDLE_TIME_S
        while not buffer:
            await self._more()
        self.stage = Stage.REQUEST
        protocol.deadline = protocol.loop.time() + REQUEST_TIME_S
        first, searched = True, 0
        while True:
            if first and buffer.startswith(b"\r\n"):
                # RFC 9112 section 2.2: one empty line before a request is ignored.
                del buffer[:2]
                first = False
            end = head_end(buffer, searched)
            if end >= 0:
                break
            searched = len(buffer)
            await self._more()
        head = protocol.parsed(bytes(buffer[:end]))
        del buffer[: end + 4]
        if head.has_body:
            await self._skip_body(head)
        return head

    async def _skip_body(self, head: Head) -> None:
        body, buffer = Body(head.length), self.recv_buffer
        if head.expects_continue and not buffer:
            self.protocol.transport.write(_CONTINUE)
        while not body.skip(buffer):
            await self._more()

    async def _more(self) -> None:
        """Wait until more has arrived."""
        protocol = self.protocol
        if protocol.ended:
            if self.stage is Stage.IDLE:
                raise _EndOfStreamError
            raise MalformedRequestError("the request ends before it is complete")
        await self._receive_more()

    async def _respond(self, head: Head, response: Response) -> None:
        self.stage = Stage.RESPONSE
        protocol = self.protocol
        if not protocol.writable:
            protocol.deadline = protocol.loop.time() + WRITE_TIME_S
            await protocol.until_writable()
        connection = b"" if self.keep_alive else b"Connection: close\r\n"
        if self.keep_alive and head.persist_by_field:
            connection = b"Connection: keep-alive\r\n"
        protocol.transport.write(
            _formatted(response, connection, b"" if head.method == "HEAD" else response.body)
        )

    def _refuse(self, error: RequestError) -> None:
        """Answer what is no request; where the next one begins is not known, so the connection ends."""
        response = self.protocol.endpoints.refuse(error)
        self.keep_alive = False
        self.protocol.transport.write(_formatted(response, b"Connection: close\r\n", response.body))
        self.protocol.linger()


def _formatted(response: Response, connection: bytes, body: bytes) -> bytes:
    length = b"" if response.status == 304 else b"Content-Length: %d\r\n" % len(response.body)
    return b"".join(
        (_STATUS_LINES[response.status], _date(), response.fields, length, connection, b"\r\n", body)
    )


_date_line = b""
_date_second = 0


def _date() -> bytes:
    """Give the Date line (RFC 9110 section 6.6.1), made once a second."""
    global _date_line, _date_second  # noqa: PLW0603
    second = int(time.time())
    if second != _date_second:
        _date_line = f"Date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")
        _date_second = second
    return _date_line


class Owner(Protocol):
    """What connections share: the server they belong to."""

    endpoints: Endpoints
    draining: bool

    def left(self) -> None:
        """Hear that a connection has ended."""


class Connection(HttpProtocol):  # type: ignore[misc]  # likewise
    """The transport's side of a connection.

    Attributes:
        deadline: when ``expire`` has to be called, in the loop's time; the server looks at all of them once a second,
            which costs nothing for each request.
        peername: what the transport calls the other end.
        ended: the client sends no more; it may still read.
    """

    HTTP_CLASS = Exchange
    __slots__ = (
        "_discarded",
        "_last_head",
        "_last_parsed",
        "_lingering",
        "_owner",
        "_waiter",
        "deadline",
        "ended",
        "endpoints",
        "peername",
    )

    def __init__(self, *, app: Any, **kwargs: Any) -> None:
        """Make the connection that Sanic asks for; ``app.ctx.owner`` is the server it belongs to."""
        super().__init__(app=app, **kwargs)
        self._owner: Owner = app.ctx.owner
        self.endpoints = self._owner.endpoints
        self.deadline = _NEVER
        self.peername: Any = None
        self.ended = False
        self._lingering = False
        self._discarded = 0
        self._waiter: asyncio.Future[None] | None = None
        self._last_head = b""
        self._last_parsed: Head | None = None

    @property
    def draining(self) -> bool:
        """Whether the server takes no further requests."""
        return self._owner.draining

    @property
    def writable(self) -> bool:
        """Whether the client keeps up with its answers."""
        return bool(self._can_write.is_set())

    async def until_writable(self) -> None:
        """Wait until the client has read what it was sent."""
        await self._can_write.wait()

    def parsed(self, head: bytes) -> Head:
        """Read a head; a client that repeats its request byte for byte, as most do, pays for it once."""
        if head != self._last_head or self._last_parsed is None:
            self._last_parsed = parse_head(head)
            self._last_head = head
        return self._last_parsed

    async def connection_task(self) -> None:
        """Serve the connection, and close it."""
        self._http = Exchange(self)
        try:
            await self._http.http1()
        finally:
            self._task = None
            if not self._lingering:
                self.close()

    async def receive_more(self) -> None:
        """Wait until more has arrived, or until ``expire`` or the end of the stream."""
        if len(self.recv_buffer) >= BUFFER_LIMIT:
            self.transport.resume_reading()
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def check_timeouts(self) -> None:
        """Do nothing: Sanic's limits start anew with each byte, which a slow client can go on for ever with."""

    def expire(self) -> None:
        """End what has lasted too long."""
        self.deadline = _NEVER
        waiter = self._waiter
        if waiter is None or waiter.done():
            # An answer that nobody reads, or the rest of a refused request.
            self.abort()
        elif self._http.stage is Stage.REQUEST:
            waiter.set_exception(
                RequestTimeoutError(f"the request was not complete after {REQUEST_TIME_S:g} s")
            )
        else:
            waiter.set_exception(_EndOfStreamError)

    def linger(self) -> None:
        """End our side, and read on for a while.

        A close with bytes unread is a reset, which can overtake the answer and erase it.
        """
        self._lingering = True
        self.recv_buffer.clear()
        if self.ended or self.transport.is_closing():
            self.close()
            return
        self.deadline = self.loop.time() + LINGER_TIME_S
        self.transport.write_eof()
        self.transport.resume_reading()

    def finish(self) -> None:
        """End the connection if nothing is under way on it (called while draining)."""
        if self._lingering:
            self.close()
        elif not self.recv_buffer:
            self.close_if_idle()

    # What the transport calls.

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.peername = transport.get_extra_info("peername")
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes in."""
        if self._lingering:
            self._discarded += len(data)
            if self._discarded > _LINGER_LIMIT:
                self.abort()
            return
        self.recv_buffer += data
        if len(self.recv_buffer) >= BUFFER_LIMIT:
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Go on answering a client that ended its side only: what it asked for is still wanted."""
        self.ended = True
        if self._lingering:
            self.close()
        self._wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop."""
        super().connection_lost(exc)
        self._owner.left()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
