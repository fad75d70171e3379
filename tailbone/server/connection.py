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
from tailbone.server.request_head import Body, Head, head_end, parse_head

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

LINGER_LIMIT: Final = 1024 * 1024
"""How much of it, in bytes."""

BUFFER_LIMIT: Final = 64 * 1024
"""How much of what a client sends ahead is held, in bytes."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE: Final = b"Connection: close\r\n"
_KEEP: Final = b"Connection: keep-alive\r\n"
_NEVER: Final = float("inf")
_STATUS_LINES: Final[dict[int, bytes]] = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus
}


class _EndOfStreamError(Exception):
    """No further request comes on this connection."""


class Exchange(Http):
    """Requests and answers of one connection, one after the other.

    Takes the place of Sanic's parser, which guesses, and of its request and response objects, which cost
    more than all else that a token needs besides its signature. Backpressure and closing stay Sanic's.
    """

    protocol: Connection

    async def http1(self) -> None:
        """Serve requests until one side wants no more."""
        connection = self.protocol
        head: Head | None = None
        try:
            while self.keep_alive:
                head = None
                head = await self._head()
                await self._skip_body(head)
                self.stage = Stage.HANDLER
                response = await connection.endpoints.answer(head, connection.peername)
                self.keep_alive = head.keep_alive and not connection.draining
                await self._respond(head, response)
                if self.recv_buffer:
                    # A pipelining client waits its turn like everybody else.
                    await asyncio.sleep(0)
        except _EndOfStreamError:
            return
        except RequestError as error:
            # Where a next request would begin is not known: the connection ends.
            response = connection.endpoints.refuse_incomplete(head, error, connection.peername)
            body = b"" if head is not None and head.method == "HEAD" else response.body
            connection.write(_formatted(response, _CLOSE, body))
            connection.linger()
        else:
            if self.recv_buffer:
                connection.linger()

    async def _head(self) -> Head:
        """Receive the next request's head."""
        connection, buffer = self.protocol, self.recv_buffer
        self.stage = Stage.IDLE
        connection.deadline = connection.loop.time() + IDLE_TIME_S
        while not buffer:
            await self._more()
        self.stage = Stage.REQUEST
        connection.deadline = connection.loop.time() + REQUEST_TIME_S
        end = await self._head_end()
        head = connection.parsed(bytes(buffer[:end]))
        del buffer[: end + 4]
        return head

    async def _skip_body(self, head: Head) -> None:
        """Receive the body; all that matters of it is that it is well-formed."""
        if not head.has_body:
            return
        body = Body(head.length)
        if head.expects_continue and not self.recv_buffer:
            self.protocol.write(_CONTINUE)
        while not body.skip(self.recv_buffer):
            await self._more()

    async def _head_end(self) -> int:
        buffer, searched, first = self.recv_buffer, 0, True
        while True:
            if first and buffer.startswith(b"\r\n"):
                # RFC 9112 section 2.2: one empty line before a request is ignored.
                del buffer[:2]
                first = False
            end = head_end(buffer, searched)
            if end >= 0:
                return end
            searched = len(buffer)
            await self._more()

    async def _more(self) -> None:
        """Wait until more has arrived."""
        if not self.protocol.ended:
            await self.protocol.receive_more()
        elif self.stage is Stage.IDLE:
            raise _EndOfStreamError
        else:
            raise MalformedRequestError("the request ends before it is complete")

    async def _respond(self, head: Head, response: Response) -> None:
        self.stage = Stage.RESPONSE
        connection = self.protocol
        if not connection.writable:
            connection.deadline = connection.loop.time() + WRITE_TIME_S
            await connection.until_writable()
        persistence = b"" if self.keep_alive else _CLOSE
        if self.keep_alive and head.persist_by_field:
            persistence = _KEEP
        connection.write(_formatted(response, persistence, b"" if head.method == "HEAD" else response.body))


def _formatted(response: Response, persistence: bytes, body: bytes) -> bytes:
    length = b"" if response.status == 304 else b"Content-Length: %d\r\n" % len(response.body)
    return b"".join(
        (_STATUS_LINES[response.status], _date(), response.fields, length, persistence, b"\r\n", body)
    )


_date_line = b""
_date_second = 0


def _date() -> bytes:
    """Give the Date line (RFC 9110 section 6.6.1), made once a second."""
    global _date_line, _date_second
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


class Connection(HttpProtocol):
    """The transport's side of a connection.

    Attributes:
        endpoints: what answers its requests.
        peername: what the transport calls the other end.
        deadline: when ``expire`` has to be called, in the loop's time. The server looks at all of them
            once a second, so that no request pays for a timer.
        ended: the client sends no more; it may still read.
    """

    __slots__ = (
        "_discarded",
        "_last_head",
        "_last_parsed",
        "_lingering",
        "_link",
        "_owner",
        "_paused",
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
        self._link: asyncio.Transport
        self._paused = False
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
        return self._can_write.is_set()

    async def until_writable(self) -> None:
        """Wait until the client has read what it was sent."""
        await self._can_write.wait()

    def write(self, data: bytes) -> None:
        """Send ``data``, unless the client is gone."""
        if not self._link.is_closing():
            self._link.write(data)

    def parsed(self, head: bytes) -> Head:
        """Read a head; a client that repeats its request byte for byte, as most do, pays for it once."""
        if head != self._last_head or self._last_parsed is None:
            self._last_parsed = parse_head(head)
            self._last_head = head
        return self._last_parsed

    async def connection_task(self) -> None:
        """Serve the connection, and close it."""
        self._http = Exchange(self)  # type: ignore[no-untyped-call]
        try:
            await self._http.http1()
        except Exception as error:  # noqa: BLE001  logged; nothing sensible can be sent any more
            self.endpoints.refuse(error, self.peername)
        finally:
            self._task = None
            if not self._lingering:
                self.close()

    async def receive_more(self) -> None:
        """Wait until more has arrived, the client has ended its side, or ``expire`` raises here."""
        if self._paused:
            self._paused = False
            self._link.resume_reading()
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def check_timeouts(self) -> None:
        """Do nothing: Sanic's limits begin anew with each byte, which a slow client can go on sending."""

    def expire(self) -> None:
        """End what has lasted past its deadline; the making of an answer has none."""
        stage = self._http.stage
        if self._lingering or stage is Stage.RESPONSE:
            self.deadline = _NEVER
            self.abort()  # type: ignore[no-untyped-call]
        elif self._waiter is not None and not self._waiter.done():
            self.deadline = _NEVER
            late: Exception = _EndOfStreamError()
            if stage is Stage.REQUEST:
                late = RequestTimeoutError(f"the request was not complete after {REQUEST_TIME_S:g} s")
            self._waiter.set_exception(late)

    def linger(self) -> None:
        """End our side, and read on for a while.

        A close with bytes unread is a reset, which can overtake the answer and erase it.
        """
        self.recv_buffer.clear()
        if self.ended or self._link.is_closing():
            return
        self._lingering = True
        self.deadline = self.loop.time() + LINGER_TIME_S
        self._link.write_eof()
        if self._paused:
            self._link.resume_reading()

    def finish(self) -> None:
        """End the connection if nothing is under way on it (called while draining)."""
        if self._lingering:
            self.close()
        elif not self.recv_buffer:
            self.close_if_idle()

    # What the transport calls.

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._link = transport
        self.peername = transport.get_extra_info("peername")
        super().connection_made(transport)  # type: ignore[no-untyped-call]

    def data_received(self, data: bytes) -> None:
        """Take bytes in."""
        if self._lingering:
            self._discarded += len(data)
            if self._discarded > LINGER_LIMIT:
                self.abort()  # type: ignore[no-untyped-call]
            return
        self.recv_buffer += data
        if len(self.recv_buffer) >= BUFFER_LIMIT and not self._paused:
            self._paused = True
            self._link.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Go on answering a client that ended only its side: what it asked for is still wanted."""
        self.ended = True
        if self._lingering:
            self.close()
        self._wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop."""
        super().connection_lost(exc)  # type: ignore[no-untyped-call]
        self._owner.left()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
