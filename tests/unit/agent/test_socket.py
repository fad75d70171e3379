"""The agent's endpoint: who is answered, and with what."""

from __future__ import annotations

import asyncio
import http.client
import json
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tailbone.agent.socket import Endpoint
from tailbone.client.local_agent import LocalAgent
from tailbone.client.token import Token
from tailbone.errors import (
    AddressInUseError,
    IssuerRefusedError,
    IssuerUnreachableError,
    TailboneError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

BEARER = b"0123456789abcdef"


class Source:
    """Gives tokens, or fails."""

    error: TailboneError | None = None
    asked: tuple[str, float | None] | None = None

    async def __call__(self, audience: str, ttl: float | None) -> tuple[Token, float]:
        self.asked = audience, ttl
        if self.error:
            raise self.error
        return Token("token", 2000, 1000.0), 500.9


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def endpoint(source: Source) -> Endpoint:
    return Endpoint(source, lambda: "counters\n")


@pytest.fixture
async def ask(endpoint: Endpoint) -> AsyncIterator[Callable[..., Any]]:
    """Send a request to the loopback port; return the status and the body."""

    def request(port: int, target: str, method: str, fields: dict[str, str]) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request(method, target, headers={"Authorization": f"Bearer {BEARER.decode()}"} | fields)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, json.loads(body) if body.startswith(b"{") else body

    async def call(target: str, method: str = "GET", **fields: str) -> tuple[int, Any]:
        return await asyncio.to_thread(request, port, target, method, fields)

    async with endpoint.on_loopback("127.0.0.1", 0, BEARER) as port:
        yield call


async def test_a_token_with_how_long_it_is_valid(ask: Callable[..., Any], source: Source) -> None:
    """Of the requested audience and lifetime."""
    answer = await ask("/token?audience=a%20b&ttl=5m")
    assert answer == (200, {"token": "token", "expires_at": 2000, "expires_in": 500})
    assert source.asked == ("a b", 300.0)


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [
        ("/token?ttl=5", "GET", 400),
        ("/token", "POST", 405),
        ("/other", "GET", 404),
        ("/aws?role_arn=x", "GET", 400),
    ],
)
async def test_other_requests_are_refused(
    target: str, method: str, status: int, ask: Callable[..., Any]
) -> None:
    """With a code and a text."""
    found, body = await ask(target, method)
    assert found == status
    assert set(body) == {"error", "message"}


@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer x", "Basic 0123456789abcdef"])
async def test_the_loopback_port_needs_the_bearer_token(sent: str, ask: Callable[..., Any]) -> None:
    """Any local user can connect to it."""
    assert (await ask("/token", Authorization=sent))[0] == 401
    assert (await ask("/metrics")) == (200, b"counters\n")


@pytest.mark.parametrize(
    ("error", "status"), [(IssuerRefusedError("no"), 403), (IssuerUnreachableError("away"), 503)]
)
async def test_a_failure_is_the_issuers(
    error: TailboneError, status: int, ask: Callable[..., Any], source: Source, endpoint: Endpoint
) -> None:
    """With its text; it is counted."""
    source.error = error
    assert await ask("/token") == (status, {"error": error.code, "message": error.message})
    assert (endpoint.answered, endpoint.refused) == (0, 1)


@pytest.mark.parametrize("raw", [b"GET\r\n\r\n", b"\xff / x\r\n\r\n", b"x" * 100_000, b"GET / HTTP/1.1\r\n"])
async def test_what_is_not_http_is_closed(raw: bytes, endpoint: Endpoint) -> None:
    """Without an answer; others are still served."""
    async with endpoint.on_loopback("127.0.0.1", 0, BEARER) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw)
        writer.write_eof()
        assert await asyncio.wait_for(_rest(reader), 10) == b""
        writer.close()


@pytest.mark.parametrize(
    ("method", "error", "line"),
    [
        ("POST", None, b"HTTP/1.1 405 Method Not Allowed"),
        ("GET", IssuerUnreachableError("away"), b"HTTP/1.1 503 Service Unavailable"),
    ],
)
async def test_a_status_has_its_phrase(
    method: str, error: TailboneError | None, line: bytes, endpoint: Endpoint, source: Source, tmp_path: Path
) -> None:
    """Clients show it to people."""
    source.error = error
    path = tmp_path / "agent.sock"
    async with endpoint.on_socket(path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(f"{method} /token HTTP/1.1\r\n\r\n".encode())
        assert (await asyncio.wait_for(reader.readline(), 10)).strip() == line
        writer.close()


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_the_socket_is_for_its_user(endpoint: Endpoint, tmp_path: Path) -> None:
    """The client's LocalAgent understands the answer."""
    path = tmp_path / "agent.sock"
    async with endpoint.on_socket(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        token = await asyncio.to_thread(LocalAgent(path).issue, "a", 60)
        assert token == Token("token", 2000, 500)


async def test_a_client_that_asks_nothing_does_not_delay_the_end(endpoint: Endpoint, tmp_path: Path) -> None:
    """Its connection is closed, too."""
    path = tmp_path / "agent.sock"
    async with asyncio.timeout(5):
        async with endpoint.on_socket(path):
            silent, writer = await asyncio.open_unix_connection(path)
            answered, other = await asyncio.open_unix_connection(path)
            other.write(b"GET /metrics HTTP/1.1\r\n\r\n")
            await answered.read()  # the server has accepted both
        assert await _rest(silent) == b""
        writer.close()
        other.close()


async def test_a_killed_agents_socket_is_taken_over(endpoint: Endpoint, tmp_path: Path) -> None:
    """That of a running one is not."""
    path = tmp_path / "agent.sock"
    async with endpoint.on_socket(path):
        with pytest.raises(AddressInUseError, match="another agent"):
            await endpoint.on_socket(path).__aenter__()
    assert path.exists()
    async with endpoint.on_socket(path):
        assert LocalAgent(path).runs


async def test_a_path_that_is_too_long(endpoint: Endpoint, tmp_path: Path) -> None:
    """A Unix socket's has about 100 bytes."""
    with pytest.raises(AddressInUseError, match="path too long"):
        await endpoint.on_socket(tmp_path / ("a" * 120)).__aenter__()


async def test_a_file_in_place_of_the_socket_stays(endpoint: Endpoint, tmp_path: Path) -> None:
    """It may be somebody's."""
    path = tmp_path / "agent.sock"
    path.write_text("kept")
    with pytest.raises(AddressInUseError):
        await endpoint.on_socket(path).__aenter__()
    assert path.read_text() == "kept"
