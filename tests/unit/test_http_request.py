"""A request, and what becomes of its answer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from harness.web import Page, WebServer

from tailbone import http_request
from tailbone.http_request import get, post

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.mark.parametrize("status", [200, 403, 503])
def test_every_status_is_an_answer(web: WebServer, status: int) -> None:
    """A refusal has a body, too."""
    web.pages["/x"] = Page(b"text", status=status)
    assert post(f"{web.url}/x", b"a=b", {"Authorization": "Bearer t"}) == (status, b"text")
    [request] = web.requests
    assert (request["body"], request["Authorization"]) == ("a=b", "Bearer t")


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_is_not_followed(web: WebServer, status: int) -> None:
    """Its target would get the field Authorization."""
    web.pages["/x"] = Page(b"", {"Location": f"{web.url}/other"}, status)
    assert post(f"{web.url}/x", b"a=b", {"Authorization": "Bearer t"}).status == status
    assert [request["path"] for request in web.requests] == ["/x"]


def test_an_answer_is_read_up_to_a_limit(web: WebServer) -> None:
    """A service cannot fill the memory."""
    web.pages["/x"] = Page(bytes(262145))
    assert len(post(f"{web.url}/x", b"").body) == 262144


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 403 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
async def test_anything_else_is_one_error(answer: bytes) -> None:
    """Another protocol, and an answer that ends too early."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(OSError, match=r"."):
            await asyncio.to_thread(post, f"http://127.0.0.1:{port}/", b"")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://127.0.0.1:9/\u00fc", "http://127.0.0.1:9/ x"])
def test_a_url_that_cannot_be_requested(url: str) -> None:
    """No port, or no URL."""
    with pytest.raises(OSError, match=r"."):
        post(url, b"")


def test_a_get_request_has_no_body(web: WebServer) -> None:
    """It has the same limits."""
    web.pages["/x?a=b"] = Page(bytes(262145))
    assert len(get(f"{web.url}/x?a=b", {"Metadata-Flavor": "Google"}).body) == 262144
    [request] = web.requests
    assert (request["body"], request["Metadata-Flavor"]) == ("", "Google")


@pytest.mark.parametrize("by_proxy", [True, False])
def test_a_proxy_is_used_unless_the_caller_excludes_it(
    web: WebServer, monkeypatch: pytest.MonkeyPatch, by_proxy: bool
) -> None:
    """An address that means this machine alone must not be asked from another one."""
    with WebServer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        get(f"{web.url}/x", {}, by_proxy=by_proxy)
        assert (len(proxy.requests), len(web.requests)) == (int(by_proxy), int(not by_proxy))


async def test_an_answer_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part comes in time, and there is always another one."""
    monkeypatch.setattr(http_request, "_TIMEOUT_S", 0.2)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(get, f"http://127.0.0.1:{port}/", {})
