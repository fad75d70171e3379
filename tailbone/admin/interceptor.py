"""What every call passes: know the caller, admit it, answer errors as statuses, and write one log line."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
import msgspec
from google.protobuf.message import DecodeError

from tailbone.admin._proto import admin_pb2
from tailbone.admin.access import admit
from tailbone.admin.statuses import CODE_METADATA, status_of
from tailbone.errors import MalformedRequestError, MethodNotAllowedError, RequestTimeoutError, TailboneError
from tailbone.text import safe_text
from tailbone.tsnet.peername import address_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tailbone.process.log import Logger
    from tailbone.token.identity import Identity

REQUEST_TIME_S: Final = 10.0
"""How long a request may take to arrive. The longest one is a hundred bytes."""

_REFUSED_TIME_S: Final = 1.0
"""The same for one that is refused anyway, and only logged."""

_HEALTH: Final = "/grpc.health.v1.Health/"


class Entrance(msgspec.Struct, frozen=True, kw_only=True):
    """How callers are recognized and what they may do.

    Attributes:
        identify: from grpc's name of the peer to its identity; raises UnknownCallerError.
        access: one of ``access.ACCESS_MODES``.
        capability: the capability that holds roles, for ``grant``.
        log: where the one line of each call goes. With a strict one, a call whose line cannot be written is
            answered as an internal error.
    """

    identify: Callable[[str], Identity]
    access: str
    capability: str
    log: Logger


_CALLER: ContextVar[Identity] = ContextVar("caller")


def the_caller() -> Identity:
    """Give whose call is being answered; only for what a guard has let through."""
    return _CALLER.get()


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc is untyped
    """Wraps every method, also those that do not exist.

    A unary method is served as if its request were a stream, which is the same on the wire: so the caller is
    known before the first byte of its request is read, and a request refused for its size is logged too. Of
    a caller that nobody knows no request is read.

    A call runs in a task of its own: a caller that hangs up neither stops a change half-way nor hides
    its outcome.
    """

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._calls: set[asyncio.Task[Any]] = set()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Wrap the handler that grpc has found, if any (called by grpc, before it knows the peer)."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is not None and handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.stream_unary_rpc_method_handler(
            self._unary(method, handler),
            request_deserializer=None,
            response_serializer=None if handler is None else handler.response_serializer,
        )

    async def finish(self, within_s: float) -> None:
        """End the calls that outlived the server's grace, in at most ``within_s`` seconds."""
        calls = set(self._calls)
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls, timeout=within_s)

    def _unary(self, method: str, handler: Any) -> Callable[[AsyncIterator[bytes], Any], Awaitable[Any]]:
        async def answer(requests: AsyncIterator[bytes], context: Any) -> Any:
            call = asyncio.create_task(self._call(method, handler, requests, context))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            try:
                answered = await asyncio.shield(call)
            except Exception:  # noqa: BLE001  the log itself failed: grpc would send the exception's text
                answered = _INTERNAL
            if isinstance(answered, _Refusal):
                await answered.send(context)
            return answered

        return answer

    async def _call(self, method: str, handler: Any, requests: AsyncIterator[bytes], context: Any) -> Any:
        line = _Line(self._entrance, method, context.peer())
        try:
            line.recognize()
            try:
                line.admit()
            except TailboneError:
                # Refused it is; the line still says what was asked for, as far as that can be read.
                with contextlib.suppress(TailboneError):
                    line.asked(_decoded(await _one(requests, _REFUSED_TIME_S), handler))
                raise
            request = _decoded(await _one(requests), handler)
            line.asked(request)
            answer = await handler.unary_unary(request, context)
        except asyncio.CancelledError:
            line.cancelled()
            raise
        except Exception as error:  # noqa: BLE001  logged, and answered as a status
            return line.failed(error)
        line.answered(answer)
        return answer

    def _stream(self, method: str, handler: Any) -> Callable[[Any, Any], Awaitable[None]]:
        # Only the health service streams; it writes to the context itself, and ends when its caller goes.
        async def answer(request: Any, context: Any) -> None:
            line = _Line(self._entrance, method, context.peer())
            try:
                line.recognize()
                line.admit()
                await handler.unary_stream(request, context)
            except asyncio.CancelledError:
                line.cancelled()
                raise
            except Exception as error:  # noqa: BLE001  logged, and answered as a status
                await line.failed(error).send(context)
            else:
                line.answered()

        return answer


class _Refusal(msgspec.Struct, frozen=True, kw_only=True):
    status: Any
    code: str
    message: str

    async def send(self, context: Any) -> None:
        await context.abort(self.status, self.message, ((CODE_METADATA, self.code),))


_INTERNAL: Final = _Refusal(
    status=grpc.StatusCode.INTERNAL, code="internal", message="internal error; the server's log has it"
)


class _Line:
    """The one log line of a call, filled as the call goes on and written at its end."""

    def __init__(self, entrance: Entrance, method: str, peer: str) -> None:
        self._entrance = entrance
        self._method = method
        self._peer = peer
        self._began = time.monotonic()
        self._facts: dict[str, Any] = {"method": safe_text(method).rsplit("/", 1)[-1]}

    def recognize(self) -> None:
        """Find out who calls."""
        self._facts["address"] = address_of(self._peer)
        caller = self._entrance.identify(self._peer)
        _CALLER.set(caller)
        self._facts |= {
            "caller": caller.login or ",".join(caller.tags),
            "sub": caller.subject,
            "node": caller.node,
        }

    def admit(self) -> None:
        """Find out whether who calls may do so."""
        entrance = self._entrance
        admit(the_caller(), self._method, access=entrance.access, capability=entrance.capability)

    def asked(self, request: Any) -> None:
        for field, value in request.ListFields():
            self._facts[field.name] = safe_text(value) if isinstance(value, str) else value

    def answered(self, answer: Any = None) -> None:
        if isinstance(answer, admin_pb2.GenerateNewKeysResponse):
            self._facts["key_id"] = answer.key.key_id
        log = self._entrance.log
        write = log.debug if self._method.startswith(_HEALTH) else log.info
        write("admin call", outcome="ok", **self._rest())

    def cancelled(self) -> None:
        self._entrance.log.warning("admin call", outcome="cancelled", **self._rest())

    def failed(self, error: Exception) -> _Refusal:
        """Log why the call failed, and give what the caller hears."""
        if not isinstance(error, TailboneError):
            self._entrance.log.error("admin call", outcome="internal", exc_info=error, **self._rest())
            return _INTERNAL
        reason = {"detail": error.detail} if error.detail else {}
        self._entrance.log.warning(
            "admin call", outcome=error.code, message=error.message, **reason, **self._rest()
        )
        return _Refusal(status=status_of(error), code=error.code, message=error.message)

    def _rest(self) -> dict[str, Any]:
        return self._facts | {"took_ms": round((time.monotonic() - self._began) * 1000, 1)}


async def _one(requests: AsyncIterator[bytes], within_s: float = REQUEST_TIME_S) -> bytes:
    received: list[bytes] = []
    try:
        async with asyncio.timeout(within_s):
            async for request in requests:
                received.append(request)
                if len(received) > 1:
                    break
    except TimeoutError:
        raise RequestTimeoutError("the request did not arrive in time") from None
    if len(received) != 1:
        raise MalformedRequestError("exactly one request is needed, and of a sensible size")
    return received[0]


def _decoded(raw: bytes, handler: Any) -> Any:
    if handler is None:
        raise MethodNotAllowedError("this server has no such method")
    try:
        return handler.request_deserializer(raw)
    except DecodeError:
        raise MalformedRequestError("the request is not what this method takes") from None
