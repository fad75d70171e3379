"""Tailscale's two endpoints of identity federation, in front of a private tailnet's control server."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

from harness.relay import relay
from harness.tailnet import Loop

if TYPE_CHECKING:
    from harness.tailnet import Tailnet

ACCESS = "tskey-api-access"


class FederatingControl:
    """A control server that also exchanges ID tokens for auth keys of the tags that are asked for.

    Attributes:
        url: its URL.
        id_token: the ID token that it accepts.
        client_id: the client id that it accepts.
        created: the keys that it was asked for.
    """

    def __init__(self, tailnet: Tailnet) -> None:
        self.id_token = "eyJhbGciOi.eyJzdWIi.c2ln"
        self.client_id = "kClient"
        self.created: list[dict[str, Any]] = []
        self._tailnet = tailnet
        self._control = urlsplit(tailnet.control_url)
        self._loop = Loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    def __enter__(self) -> Self:
        self._server = self._loop.run(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._close())
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a request of the API; pass everything else on to the control server."""
        try:
            first = await reader.read(1 << 16)
            if first.startswith(b"POST /api/"):
                writer.write(await self._answer(reader, first))
                await writer.drain()
                return
            far_reader, far_writer = await asyncio.open_connection(self._control.hostname, self._control.port)
            far_writer.write(first)
            await asyncio.gather(relay(reader, far_writer), relay(far_reader, writer))
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        body += await reader.readexactly(int(fields["Content-Length"]) - len(body))
        status, answer = self._result(head.split(b" ")[1].decode(), fields, body.decode())
        text = json.dumps(answer).encode()
        return f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text

    def _result(self, path: str, fields: dict[str, str], body: str) -> tuple[int, dict[str, Any]]:
        if path == "/api/v2/oauth/token-exchange":
            form = parse_qs(body)
            if form == {"client_id": [self.client_id], "jwt": [self.id_token]}:
                return 200, {"access_token": ACCESS, "token_type": "Bearer", "expires_in": 3600}
            return 401, {"message": f"no federated identity matches {form['jwt'][0]}"}
        assert path == "/api/v2/tailnet/-/keys"
        assert fields["Authorization"] == f"Bearer {ACCESS}"
        self.created.append(json.loads(body))
        create = self.created[-1]["capabilities"]["devices"]["create"]
        return 200, {"id": "k1", "key": self._tailnet.key(create["tags"][0])}
