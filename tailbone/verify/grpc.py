"""gRPC server interceptors: ``claims()`` returns the claims of the caller in a handler."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from tailbone.verify.bearer import ANYBODY, authorize, authorize_async
from tailbone.verify.errors import KeysUnavailableError, NotPermittedError, VerificationError

if TYPE_CHECKING:
    from tailbone.verify.claims import Claims
    from tailbone.verify.require import Requirement
    from tailbone.verify.verifier import AsyncVerifier, Verifier

_claims: ContextVar[Claims] = ContextVar("tailbone_claims")

_HANDLERS: Final = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


def claims() -> Claims:
    """Return the claims of the caller whose call is handled.

    Raises:
        LookupError: no call is handled here, or the server has no interceptor.
    """
    return _claims.get()


class TailboneInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # without types
    """Interceptor for ``grpc.server``: every method needs a token in the metadata ``authorization``."""

    def __init__(self, verifier: Verifier, require: Requirement = ANYBODY) -> None:
        """Create an interceptor.

        Args:
            verifier: verifies the tokens.
            require: who is permitted.
        """
        self._verifier = verifier
        self._require = require

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Return the handler of a call, with the check before it."""
        handler = continuation(details)
        if handler is None:
            return None
        kind, make = _HANDLERS[handler.request_streaming, handler.response_streaming]
        inner = getattr(handler, kind)

        def checked(request: Any, context: Any) -> Any:
            # Handlers share threads, so each call has a context of its own.
            own = copy_context()
            own.run(_claims.set, self._authorize(context))
            return own.run(inner, request, context)

        def checked_stream(request: Any, context: Any) -> Iterator[Any]:
            own = copy_context()
            own.run(_claims.set, self._authorize(context))
            responses = own.run(iter, own.run(inner, request, context))
            end = object()
            while (response := own.run(next, responses, end)) is not end:
                yield response

        return make(
            checked_stream if handler.response_streaming else checked,
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _authorize(self, context: Any) -> Claims:
        try:
            return authorize(_authorization(context), self._verifier, self._require)
        except VerificationError as error:
            context.abort(_status_of(error), error.message)
            raise  # abort has raised already


class AsyncTailboneInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # without types
    """Interceptor for ``grpc.aio.server``, whose handlers are coroutines or asynchronous generators."""

    def __init__(self, verifier: AsyncVerifier, require: Requirement = ANYBODY) -> None:
        """Create an interceptor; the arguments are those of ``TailboneInterceptor``."""
        self._verifier = verifier
        self._require = require

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Return the handler of a call, with the check before it."""
        handler = await continuation(details)
        if handler is None:
            return None
        kind, make = _HANDLERS[handler.request_streaming, handler.response_streaming]
        inner = getattr(handler, kind)

        # Each call has a task of its own, and so a context.
        async def checked(request: Any, context: Any) -> Any:
            _claims.set(await self._authorize(context))
            return await inner(request, context)

        async def checked_stream(request: Any, context: Any) -> AsyncIterator[Any]:
            _claims.set(await self._authorize(context))
            responses = inner(request, context)
            if isinstance(responses, AsyncIterator):
                async for response in responses:
                    yield response
            else:
                await responses  # a coroutine that uses context.write

        return make(
            checked_stream if handler.response_streaming else checked,
            handler.request_deserializer,
            handler.response_serializer,
        )

    async def _authorize(self, context: Any) -> Claims:
        try:
            return await authorize_async(_authorization(context), self._verifier, self._require)
        except VerificationError as error:
            await context.abort(_status_of(error), error.message)
            raise  # abort has raised already


def _authorization(context: Any) -> list[str]:
    return [str(value) for name, value in context.invocation_metadata() or () if name == "authorization"]


def _status_of(error: VerificationError) -> grpc.StatusCode:
    if isinstance(error, NotPermittedError):
        return grpc.StatusCode.PERMISSION_DENIED
    if isinstance(error, KeysUnavailableError):
        return grpc.StatusCode.UNAVAILABLE
    return grpc.StatusCode.UNAUTHENTICATED
