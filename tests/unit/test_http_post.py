"""A POST request, and what becomes of its answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from harness.web import Page, WebServer

from tailbone.http_post import post

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
