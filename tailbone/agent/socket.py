"""The agent's endpoint: local programs get tokens over a Unix socket, or on loopback with a bearer token.

It speaks HTTP/1.1 by itself, one GET per connection, on asyncio's streams: the token sources run on the same
event loop. http.server would need a thread per request and a way back to the loop; importing Sanic takes more
than twice as long as importing the whole agent.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import socket
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from tailbone.client.aws import AUDIENCE, Role
from tailbone.client.source import start_daemon_thread
from tailbone.client.sts import assume
from tailbone.config.durations import parse_duration
from tailbone.errors import (
    AddressInUseError,
    BadParameterError,
    ConfigError,
    ExchangeError,
    IssuerRefusedError,
    TailboneError,
)
from tailbone.process.log import get_logger
from tailbone.process.peercred import peer_uid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tailbone.client.token import Token

_HEAD_LIMIT: Final = 16384
_TIMEOUT_S: Final = 10.0


class _Answer(NamedTuple):
    status: int
    body: bytes
    content_type: str = "application/json"


def _json(status: int, value: object) -> _Answer:
    return _Answer(status, json.dumps(value).encode())


def _error(status: int, code: str, message: str) -> _Answer:
    return _json(status, {"error": code, "message": message})


class Endpoint:
    """Answers ``GET /token``, ``GET /aws`` and ``GET /metrics``, one request per connection."""

    def __init__(
        self,
        get: Callable[[str, float | None], Awaitable[tuple[Token, float]]],
        metrics: Callable[[], str],
    ) -> None:
        """Answer from these.

        Args:
            get: returns the token of an audience and a lifetime, and for how many seconds it is still valid.
            metrics: returns the counters as Prometheus text.
        """
        self._get = get
        self._metrics = metrics
        self._bearer = b""
        self._connections: set[asyncio.StreamWriter] = set()
        self.answered = self.refused = 0

    @asynccontextmanager
    async def on_socket(self, path: Path) -> AsyncIterator[None]:
        """Listen on a Unix socket that only this user and root can use, until the context ends.

        Raises:
            AddressInUseError: another agent listens there.
        """
        listening = socket.socket(socket.AF_UNIX)
        try:
            _bind(listening, path)
            server = await asyncio.start_unix_server(self._serve_peer, sock=listening)
        except BaseException:
            listening.close()
            raise
        async with self._closing(server):
            yield

    @asynccontextmanager
    async def on_loopback(self, host: str, port: int, bearer: bytes) -> AsyncIterator[int]:
        """Listen on a loopback port, for clients that send the bearer token, until the context ends.

        Yields:
            The port.

        Raises:
            AddressInUseError: the port is in use.
        """
        self._bearer = bearer
        try:
            server = await asyncio.start_server(self._serve_bearer, host, port)
        except OSError as error:
            raise AddressInUseError(f"{host}:{port}: {error.strerror}") from None
        async with self._closing(server):
            yield server.sockets[0].getsockname()[1]

    @asynccontextmanager
    async def _closing(self, server: asyncio.Server) -> AsyncIterator[None]:
        """Close a server at the end, and its connections: since Python 3.12, it waits for their ends."""
        try:
            yield
        finally:
            server.close()
            for connection in self._connections:
                connection.transport.abort()
            await server.wait_closed()

    async def _serve_peer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        allowed = peer_uid(writer.get_extra_info("socket")) in (0, os.geteuid())
        refusal = None if allowed else _error(403, "forbidden", "this agent serves its own user only")
        await self._serve(reader, writer, lambda _: refusal)

    async def _serve_bearer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def check(authorization: bytes) -> _Answer | None:
            # AWS SDKs send the value of their variable as it is.
            given = authorization.removeprefix(b"Bearer ")
            if hmac.compare_digest(given, self._bearer):
                return None
            return _error(401, "unauthorized", "Authorization must have the token of --bearer-file")

        await self._serve(reader, writer, check)

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        refusal: Callable[[bytes], _Answer | None],
    ) -> None:
        self._connections.add(writer)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            method, target, authorization = _parse(head)
            answer = refusal(authorization) or await self._answer(method, target)
            self.answered += answer.status == 200
            self.refused += answer.status != 200
            writer.write(
                f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
                f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n"
                "Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode()
                + answer.body
            )
            await writer.drain()
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            get_logger().debug("a local request failed", error=type(error).__name__)
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(self, method: str, target: str) -> _Answer:
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if method != "GET":
            return _error(405, "method_not_allowed", "only GET is known")
        try:
            if parts.path == "/metrics":
                return _Answer(200, self._metrics().encode(), "text/plain; version=0.0.4")
            if parts.path == "/token":
                token, left_s = await self._get(query.get("audience", ""), _ttl(query))
                return _json(
                    200, {"token": token.value, "expires_at": token.expires_at, "expires_in": int(left_s)}
                )
            if parts.path == "/aws":
                return _json(200, await self._aws(query))
        except (BadParameterError, ConfigError) as error:
            return _error(400, error.code, error.message)
        except (IssuerRefusedError, ExchangeError) as error:
            return _error(403, error.code, error.message)
        except TailboneError as error:
            return _error(503, error.code, error.message)
        return _error(404, "not_found", "there are GET /token, /aws and /metrics")

    async def _aws(self, query: dict[str, str]) -> dict[str, Any]:
        """Return a role's credentials in the form of AWS's container endpoints."""
        role = Role(
            arn=query.get("role_arn", ""),
            region=query.get("region", ""),
            audience=query.get("audience", AUDIENCE),
            endpoint=os.environ.get("AWS_ENDPOINT_URL_STS", ""),
        )
        token, _ = await self._get(role.audience, None)
        credentials = await asyncio.wrap_future(start_daemon_thread(lambda: assume(role, token.value)))
        return {
            "AccessKeyId": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key,
            "Token": credentials.session_token,
            "Expiration": credentials.expiration,
            "RoleArn": role.arn,
        }


def _ttl(query: dict[str, str]) -> float | None:
    try:
        return parse_duration(query["ttl"]) if query.get("ttl") else None
    except ValueError:
        raise BadParameterError("ttl must be a duration, such as 5m") from None


def _bind(listening: socket.socket, path: Path) -> None:
    """Bind a path; take over that of an agent that was killed."""
    try:
        listening.bind(str(path))
    except OSError as failure:
        if not path.is_socket():
            raise AddressInUseError(f"{path}: {failure.strerror or failure}") from None
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            except OSError as error:
                raise AddressInUseError(f"{path}: {error.strerror}") from None
            else:
                raise AddressInUseError(f"{path}: another agent listens there") from None
        listening.bind(str(path))
    # Before it listens: nobody can connect yet.
    path.chmod(0o600)


def _parse(head: bytes) -> tuple[str, str, bytes]:
    """Return method, target and the Authorization field of a request's head.

    Raises:
        ValueError: it is not HTTP.
    """
    if len(head) > _HEAD_LIMIT:
        raise ValueError("too long")
    first, *fields = head.split(b"\r\n")
    method, target, _ = first.decode("ascii").split(" ")
    authorization = b""
    for field in fields:
        name, _, value = field.partition(b":")
        if name.strip().lower() == b"authorization":
            authorization = value.strip()
    return method, target, authorization
