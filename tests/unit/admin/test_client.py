"""The client: its requests, its results, and one line for each failure."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from harness.relay import relay

from tailbone import errors
from tailbone.admin import client as client_module
from tailbone.admin import probe
from tailbone.admin._proto.admin_pb2 import Key
from tailbone.admin.client import AdminClient
from tailbone.admin.key import can_sign
from tailbone.admin.service import ServerStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.admin import GoServer, Running


async def ask(port: int, question: Callable[[AdminClient], Any], host: str = "127.0.0.1") -> Any:
    """Ask a blocking question beside the server's event loop."""

    def blocking() -> Any:
        with AdminClient(host, port) as client:
            return question(client)

    return await asyncio.to_thread(blocking)


async def failure(
    port: int, question: Callable[[AdminClient], Any], host: str = "127.0.0.1"
) -> errors.AdminError:
    with pytest.raises(errors.AdminError) as caught:
        await ask(port, question, host)
    assert "\n" not in caught.value.message
    return caught.value


async def test_list(run: Running) -> None:
    """The keys have all the fields that the server sends."""
    assert await ask(run.port, AdminClient.list) == (
        Key(key_id="tb-1795518230", algorithm="RS256", created_at=1795518230, state="active"),
    )


async def test_generate_sends_what_is_set(run: Running) -> None:
    """Size and algorithm are sent when they are given; otherwise the server uses its own settings."""
    await ask(run.port, lambda client: client.generate(size=4096))
    await ask(run.port, lambda client: client.generate(algorithm="ES256"))
    made = await ask(run.port, AdminClient.generate)
    assert run.lifecycle.asked == [
        ("generate", None, 4096),
        ("generate", "ES256", None),
        ("generate", None, None),
    ]
    assert (made.key_id, made.state) == ("tb-1795518234", "published")


async def test_remove_returns_the_remaining_keys(run: Running) -> None:
    """Removing a key returns the others."""
    made = await ask(run.port, AdminClient.generate)
    left = await ask(run.port, lambda client: client.remove("tb-1795518230"))
    assert [key.key_id for key in left] == [made.key_id]


async def test_status(start_admin: Callable[..., Any]) -> None:
    """The status has all the fields that the server sends."""
    sent = ServerStatus(version="1.2.3", reasons=[errors.Problem("no_key", "keys: none can sign")])
    async with start_admin(status=lambda: sent) as run:
        status = await ask(run.port, AdminClient.status)
    assert (status.version, status.ready, status.reasons, status.caller, status.roles) == (
        "1.2.3",
        False,
        ["keys: none can sign"],
        "dev@example.com",
        ["viewer", "operator", "admin"],
    )


async def test_a_go_server_receives_what_its_own_client_sends(go_server: GoServer) -> None:
    """Without size and algorithm, the bytes are those of the Go client."""
    await ask(go_server.port, AdminClient.generate)
    await ask(go_server.port, AdminClient.list)
    await ask(go_server.port, lambda client: client.remove("tb-1795518230"))
    assert go_server.requests == [
        ("GenerateNewKeys", b""),
        ("ListKeys", b""),
        ("RemoveKey", b"\x0a\x0dtb-1795518230"),
    ]


async def test_go_servers_keys(go_server: GoServer) -> None:
    """A Go server's keys have no state, and count as keys that can sign."""
    (key,) = await ask(go_server.port, AdminClient.list)
    assert key == Key(key_id="tb-1795518230", algorithm="RS256", created_at=1795518230)
    assert can_sign(key) is True


@pytest.mark.parametrize("asked", [{"size": 4096}, {"algorithm": "ES256"}, {"size": 2048}])
async def test_go_server_ignores_size_and_algorithm(go_server: GoServer, asked: dict[str, Any]) -> None:
    """A server that made a key and ignored the size or algorithm is an error that names the key."""
    error = await failure(go_server.port, lambda client: client.generate(**asked))
    assert isinstance(error, errors.OldServerError)
    assert "tb-1795518230" in error.message


async def test_go_server_has_no_status(go_server: GoServer) -> None:
    """A server without the method is reported as too old."""
    error = await failure(go_server.port, AdminClient.status)
    assert (error.code, error.message) == ("old_server", "the server is too old for this command: update it")


async def test_go_servers_error(go_server: GoServer) -> None:
    """A Go server's error text is shown on one line, with its control characters escaped."""
    go_server.fails = "operation error S3:\n\x1b[31m403"
    error = await failure(go_server.port, AdminClient.list)
    assert error.message == "the server answers: operation error S3:\\n\\x1b[31m403"


async def test_the_servers_errors_come_with_their_code(run: Running) -> None:
    """A server's error has its text, and what to do."""
    error = await failure(run.port, lambda client: client.remove("tb-1"))
    assert (error.detail, error.message) == (
        "unknown_key",
        "no such key; `tailbone keys list` shows the keys",
    )


async def test_s3_refused(run: Running) -> None:
    """A refusal of the store has the server's text, which says what to do."""
    run.lifecycle.fails = errors.StoreDeniedError("S3 refused s3:PutObject: grant it", detail="secret")
    error = await failure(run.port, AdminClient.generate)
    assert (error.detail, error.message) == ("store_denied", "S3 refused s3:PutObject: grant it")


async def test_s3_away(run: Running) -> None:
    """UNAVAILABLE from a server whose store is away differs from a server that cannot be reached."""
    run.lifecycle.fails = errors.StoreError("the bucket does not answer")
    error = await failure(run.port, AdminClient.generate)
    assert not isinstance(error, errors.ServerUnreachableError)
    assert error.message.startswith("the bucket does not answer; nothing was changed")


async def test_permission_denied(granting: Running) -> None:
    """A caller without the role learns which grant gives it."""
    error = await failure(granting.port, AdminClient.list)
    assert "role viewer" in error.message
    assert 'tailbone.dev/cap/admin with {"roles": ["viewer"]}' in error.message


async def test_unknown_caller(run: Running) -> None:
    """A caller that the tailnet does not know learns so."""
    run.caller = None
    error = await failure(run.port, AdminClient.list)
    assert error.message == "the tailnet knows nobody at your address"


async def test_nothing_listens(closed_port: int) -> None:
    """A closed port has its own message."""
    error = await failure(closed_port, AdminClient.list)
    assert isinstance(error, errors.ServerUnreachableError)
    assert error.message.startswith(f"nothing listens on 127.0.0.1:{closed_port}: is the server running")


async def test_http_answers(http_port: int) -> None:
    """The issuer's port, given by mistake, is recognized."""
    error = await failure(http_port, AdminClient.list)
    assert isinstance(error, errors.ServerUnreachableError)
    assert error.message.startswith(f"127.0.0.1:{http_port} speaks HTTP, not gRPC: --port names")


async def test_something_else_answers(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that never answers is not an admin API."""
    monkeypatch.setattr(client_module, "READ_TIME_S", 0.5)
    monkeypatch.setattr(probe, "_PROBE_TIME_S", 0.1)
    error = await failure(silent_port, AdminClient.list)
    assert error.message.startswith(f"no admin API answers on 127.0.0.1:{silent_port}")


async def test_a_server_that_takes_too_long(run: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change without an answer in time may have been made: the message says how to find out."""
    monkeypatch.setattr(client_module, "CHANGE_TIME_S", 0.3)
    run.lifecycle.gate = asyncio.Event()
    error = await failure(run.port, AdminClient.generate)
    assert error.message == (
        f"no answer from {run.address} within 0.3 s; "
        "if this was a change, `tailbone keys list` shows whether it was made"
    )


async def test_a_connection_that_breaks_during_a_change(run: Running) -> None:
    """The change may have been made: the message says how to find out."""
    run.lifecycle.gate = asyncio.Event()
    asked = asyncio.create_task(failure(run.port, AdminClient.generate))
    await run.lifecycle.entered.wait()
    await run.server.close(0.0)
    assert "broke; if this was a change, `tailbone keys list` shows whether" in (await asked).message


@pytest.mark.usefixtures("no_proxy")
async def test_a_call_goes_through_the_proxy(run: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """With HTTPS_PROXY a name that only the proxy resolves is reached, as through tailscaled's proxy."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", run.port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(relay(reader, to_writer), relay(to_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        assert len(await ask(run.port, AdminClient.list, "tailbone.invalid")) == 1
    assert asked[0].startswith(f"CONNECT tailbone.invalid:{run.port} ".encode())


@pytest.mark.usefixtures("no_proxy")
async def test_a_proxy_that_does_not_answer(
    run: Running, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy is named without the password in its URL."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{closed_port}")
    error = await failure(run.port, AdminClient.list, "tailbone.invalid")
    assert error.message == (
        f"tailbone.invalid:{run.port} cannot be reached through the proxy 127.0.0.1:{closed_port}"
    )


def imported_by(code: str) -> str:
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ended.stdout.strip()


def test_light_to_import() -> None:
    """The client imports neither the server's parts nor rich."""
    heavy = "sanic aiobotocore botocore jwcrypto cryptography tailbone.tsnet rich"
    code = "import sys, tailbone.admin.client; print(*[name for name in '%s'.split() if name in sys.modules])"
    assert imported_by(code % heavy) == ""
