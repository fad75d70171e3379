"""What every call passes: identify the caller, admit it, log the call, and turn errors into statuses."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
import msgspec
from google.protobuf.message import DecodeError
from grpc import StatusCode

from tailbone import errors
from tailbone.admin import CODE_METADATA
from tailbone.admin.access import is_change
from tailbone.admin.call_line import CallLine
from tailbone.errors import (
    MalformedRequestError,
    MethodNotAllowedError,
    RequestTimeoutError,
    TailboneError,
    status_in,
)
from tailbone.process.refusal_log import RefusalLog

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from tailbone.admin.access import Access
    from tailbone.process.log import Logger
    from tailbone.token.grants import Void
    from tailbone.token.identity import Identity

REQUEST_TIME_S: Final = 10.0
"""How long a request may take to arrive. The longest one is a hundred bytes."""

_REFUSED_TIME_S: Final = 1.0
"""The same for a request that is refused anyway, and is read only for its log line."""

# UNAVAILABLE means that a retry may succeed,
# FAILED_PRECONDITION that a person has to fix something first (https://grpc.io/docs/guides/status-codes/).
STATUSES: Final[Mapping[type[TailboneError], StatusCode]] = {
    # No call of the admin API raises any other error.
    errors.TailboneError: StatusCode.INTERNAL,
    errors.ConfigError: StatusCode.INVALID_ARGUMENT,
    errors.RequestError: StatusCode.INVALID_ARGUMENT,
    errors.RequestTimeoutError: StatusCode.DEADLINE_EXCEEDED,
    errors.UnknownPathError: StatusCode.NOT_FOUND,
    errors.MethodNotAllowedError: StatusCode.UNIMPLEMENTED,
    errors.AccessError: StatusCode.PERMISSION_DENIED,
    errors.LogUnavailableError: StatusCode.UNAVAILABLE,
    errors.NoSigningKeyError: StatusCode.FAILED_PRECONDITION,
    errors.UnknownKeyError: StatusCode.NOT_FOUND,
    errors.PeerNotFoundError: StatusCode.NOT_FOUND,
    errors.KeyStateError: StatusCode.FAILED_PRECONDITION,
    errors.GenerationUnderWayError: StatusCode.RESOURCE_EXHAUSTED,
    errors.KeyFileError: StatusCode.FAILED_PRECONDITION,
    errors.StoreError: StatusCode.UNAVAILABLE,
    errors.StoreConflictError: StatusCode.ABORTED,
    errors.StoreDeniedError: StatusCode.FAILED_PRECONDITION,
    errors.StoreSettingsError: StatusCode.FAILED_PRECONDITION,
    errors.ForeignDocumentError: StatusCode.FAILED_PRECONDITION,
    errors.UnconditionalStoreError: StatusCode.FAILED_PRECONDITION,
}

_CALLER: ContextVar[Identity] = ContextVar("caller")


def current_caller() -> Identity:
    """Return who made the call that is being answered; only inside a method that was admitted."""
    return _CALLER.get()


class AdminInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc is untyped
    """Wraps every method, including those that do not exist.

    A unary method is served as if its request were a stream, which is the same on the wire: the caller is
    known before the first byte of its request is read, and a request refused for its size is logged, too.
    Such a call runs in its own task: a caller that hangs up neither stops a change half-way nor hides its
    outcome. A method with a streamed answer, which only the health service has, changes nothing and is served
    as it is.
    """

    def __init__(
        self,
        *,
        identify: Callable[[str], Identity],
        access: Access,
        note_void: Callable[[Identity, str, Sequence[Void]], None],
        calls: Counter[str],
        log: Logger,
        audit: Logger,
    ) -> None:
        """Make an interceptor for one server.

        Args:
            identify: from grpc's name of the peer to its identity; raises UnknownCallerError.
            access: who may call what.
            note_void: called with each caller, the capability, and its void rules, which may be none.
            calls: counts the calls, by outcome: ok, cancelled or an error's code.
            log: receives the lines of failures, of which repeated ones are counted, and of health checks.
            audit: receives a line before each answer, and before each change; if it raises OSError, there is
                no answer or change.
        """
        self._identify = identify
        self._access = access
        self._note_void = note_void
        self._log = log
        self._audit = audit
        self._refusals = RefusalLog(log)
        self._counts = calls
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
        self._refusals.close()

    def _unary(self, method: str, handler: Any) -> Callable[[AsyncIterator[bytes], Any], Awaitable[Any]]:
        async def answer(requests: AsyncIterator[bytes], context: Any) -> Any:
            call = asyncio.create_task(self._call(method, handler, requests, context))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            answered = await asyncio.shield(call)
            if isinstance(answered, _Refusal):
                await answered.send(context)
            return answered

        return answer

    async def _call(self, method: str, handler: Any, requests: AsyncIterator[bytes], context: Any) -> Any:
        line = self._line(method, context)
        try:
            self._recognize(line, context)
            await self._admit(line, method, handler, requests)
            request = _decoded(await _only(requests, REQUEST_TIME_S), handler)
            line.add_request(request)
            if is_change(method):
                line.begins()
            answer = await handler.unary_unary(request, context)
            line.answered(answer)
        except asyncio.CancelledError:
            line.cancelled()
            raise
        except Exception as error:  # noqa: BLE001  logged, and answered as a status
            line.failed(error)
            return _refusal_of(error)
        return answer

    async def _admit(self, line: CallLine, method: str, handler: Any, requests: AsyncIterator[bytes]) -> None:
        try:
            self._access.admit(current_caller(), method)
        except TailboneError:
            # The line of a refused call says what was asked for, as far as that can be read.
            with contextlib.suppress(TailboneError):
                line.add_request(_decoded(await _only(requests, _REFUSED_TIME_S), handler))
            raise

    def _stream(self, method: str, handler: Any) -> Callable[[Any, Any], Awaitable[None]]:
        # Only the health service streams. It writes to the context itself, and ends when its caller goes.
        async def answer(request: Any, context: Any) -> None:
            line = self._line(method, context)
            try:
                self._recognize(line, context)
                self._access.admit(current_caller(), method)
                await handler.unary_stream(request, context)
            except asyncio.CancelledError:
                line.cancelled()
                raise
            except Exception as error:  # noqa: BLE001  logged, and answered as a status
                line.failed(error)
                await _refusal_of(error).send(context)
            else:
                line.answered()

        return answer

    def _line(self, method: str, context: Any) -> CallLine:
        return CallLine(self._log, self._audit, self._refusals, self._counts, method, context.peer())

    def _recognize(self, line: CallLine, context: Any) -> None:
        caller = self._identify(context.peer())
        _CALLER.set(caller)
        self._note_void(caller, self._access.capability, self._access.granted(caller)[1])
        line.add_caller(caller)


class _Refusal(msgspec.Struct, frozen=True, kw_only=True):
    status: Any
    code: str
    message: str

    async def send(self, context: Any) -> None:
        await context.abort(self.status, self.message, ((CODE_METADATA, self.code),))


def _refusal_of(error: Exception) -> _Refusal:
    """Return what the caller is answered."""
    if not isinstance(error, TailboneError):
        text = "internal error; the server's log has it"
        return _Refusal(status=StatusCode.INTERNAL, code="internal", message=text)
    return _Refusal(status=status_in(STATUSES, type(error)), code=error.code, message=error.message)


async def _only(requests: AsyncIterator[bytes], within_s: float) -> bytes:
    """Return the request of a call that must send exactly one."""
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
        raise MalformedRequestError("a call must send exactly one request, of at most 64 KiB")
    return received[0]


def _decoded(raw: bytes, handler: Any) -> Any:
    if handler is None:
        raise MethodNotAllowedError("this server has no such method")
    try:
        return handler.request_deserializer(raw)
    except DecodeError:
        raise MalformedRequestError("the request is not a valid message of this method") from None
