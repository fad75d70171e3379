"""gRPC interceptors, with real servers of both kinds."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from harness.refusals import AUDIENCE, TAG

from tailbone.verify import AsyncVerifier, Verifier, require
from tailbone.verify.grpc import AsyncTailboneInterceptor, TailboneInterceptor, claims

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tailbone.testing import FakeIssuer

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def handlers(**methods: Any) -> Any:
    made = {kind: getattr(grpc, f"{kind}_rpc_method_handler")(method) for kind, method in methods.items()}
    return grpc.method_handlers_generic_handler("test.Who", made)


def call(channel: Any, kind: str, token: str | None, requests: Any = None) -> Any:
    """Call a method of a kind with two requests, where it takes several."""
    request: Any = (requests or iter([b"1", b"2"])) if kind.startswith("stream") else b"1"
    metadata = [("authorization", f"Bearer {token}")] if token else None
    return getattr(channel, kind)(f"/test.Who/{kind}")(request, metadata=metadata)


def sub() -> bytes:
    return claims().sub.encode()


@pytest.fixture
def channel(issuer: FakeIssuer) -> Iterator[Any]:
    def unary(request: Any, context: Any) -> bytes:
        return sub()

    def stream(request: Any, context: Any) -> Iterator[bytes]:
        yield sub()
        yield sub()

    interceptor = TailboneInterceptor(Verifier(issuer.url, AUDIENCE), require(tags=TAG))
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, interceptors=[interceptor])
        server.add_generic_rpc_handlers(
            [handlers(unary_unary=unary, unary_stream=stream, stream_unary=unary, stream_stream=stream)]
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
        server.stop(None).wait()


def answered(channel: Any, kind: str, token: str | None) -> list[bytes]:
    answer = call(channel, kind, token)
    return [answer] if isinstance(answer, bytes) else list(answer)


@pytest.mark.parametrize("kind", KINDS)
def test_handlers_get_the_claims(channel: Any, issuer: FakeIssuer, kind: str) -> None:
    """In all four kinds of methods."""
    expected = [b"node:nFaketag-ci"] * (2 if kind.endswith("stream") else 1)
    assert answered(channel, kind, issuer.token(audience=AUDIENCE, as_=TAG)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_refusals(channel: Any, issuer: FakeIssuer, kind: str) -> None:
    """No handler runs without a good token."""
    for token, status in refusals(issuer):
        with pytest.raises(grpc.RpcError) as caught:
            answered(channel, kind, token)
        assert caught.value.code() is status


def refusals(issuer: FakeIssuer) -> list[tuple[str | None, grpc.StatusCode]]:
    return [
        (None, grpc.StatusCode.UNAUTHENTICATED),
        (issuer.token(audience=AUDIENCE, as_=TAG, expired=True), grpc.StatusCode.UNAUTHENTICATED),
        (issuer.token(audience=AUDIENCE), grpc.StatusCode.PERMISSION_DENIED),
    ]


def test_unknown_methods_stay_unknown(channel: Any) -> None:
    """gRPC answers them itself."""
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.Who/other")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_outside_a_call_there_are_no_claims() -> None:
    """A handler of a server without the interceptor fails, instead of trusting nobody."""
    with pytest.raises(LookupError):
        claims()


@pytest.fixture
async def aio_channel(issuer: FakeIssuer) -> AsyncIterator[Any]:
    async def unary(request: Any, context: Any) -> bytes:
        return sub()

    async def stream(request: Any, context: Any) -> AsyncIterator[bytes]:
        yield sub()
        yield sub()

    async def writing(request: Any, context: Any) -> None:
        await context.write(sub())
        await context.write(sub())

    interceptor = AsyncTailboneInterceptor(AsyncVerifier(issuer.url, AUDIENCE), require(tags=TAG))
    server = grpc.aio.server(interceptors=[interceptor])
    server.add_generic_rpc_handlers(
        [handlers(unary_unary=unary, unary_stream=stream, stream_unary=unary, stream_stream=writing)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


async def unsent() -> AsyncIterator[bytes]:
    """Requests that are not sent before the answer: grpc.aio's client loses the status if sending fails."""
    await asyncio.Event().wait()
    yield b""


async def answered_async(
    channel: Any, kind: str, token: str | None, requests: AsyncIterator[bytes] | None = None
) -> list[bytes]:
    answer = call(channel, kind, token, requests)
    return [part async for part in answer] if kind.endswith("stream") else [await answer]


@pytest.mark.parametrize("kind", KINDS)
async def test_asynchronous_handlers_get_the_claims(aio_channel: Any, issuer: FakeIssuer, kind: str) -> None:
    """In coroutines, asynchronous generators, and coroutines that write."""
    expected = [b"node:nFaketag-ci"] * (2 if kind.endswith("stream") else 1)
    token = issuer.token(audience=AUDIENCE, as_=TAG)
    assert await answered_async(aio_channel, kind, token) == expected


@pytest.mark.parametrize("kind", KINDS)
async def test_asynchronous_refusals(aio_channel: Any, issuer: FakeIssuer, kind: str) -> None:
    """No handler runs without a good token; a stream of requests is refused before its first one."""
    for token, status in refusals(issuer):
        with pytest.raises(grpc.RpcError) as caught:
            await answered_async(aio_channel, kind, token, unsent())
        assert caught.value.code() is status
