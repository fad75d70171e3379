"""The server: its life, its answers, and the health service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
import pytest
from harness.admin import explain_with, info
from harness.grants import as_json

from tailbone.admin import service
from tailbone.admin._proto import admin_pb2 as pb
from tailbone.admin._proto import admin_pb2_grpc
from tailbone.admin.access import Access
from tailbone.admin.service import AdminServer, ServerStatus
from tailbone.errors import AddressInUseError, Problem
from tailbone.token.void_rules import VoidRules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.admin import Running


def server(run: Running) -> AdminServer:
    return AdminServer(
        lifecycle=run.lifecycle,
        identify=run.identify,
        find=run.find,
        explain=explain_with(run.settings),
        void_rules=VoidRules(run.log),  # type: ignore[arg-type]
        access=Access(mode="acl", capability="tailbone.dev/cap/admin"),
        status=ServerStatus,
        calls=run.calls,
        log=run.log,
        audit=run.log,
    )


async def test_a_listed_key_is_complete(run: Running) -> None:
    """A key is listed with its state, whether it is foreign, and what happens to it next."""
    run.lifecycle.keys = {
        "x": info(
            "x",
            algorithm="ES256",
            state="published",
            foreign=True,
            next_change=("signs", 1795518530.7),
        )
    }
    async with grpc.aio.insecure_channel(run.address) as channel:
        answer = await admin_pb2_grpc.AdminServiceStub(channel).ListKeys(pb.ListKeysRequest())
    assert list(answer.keys) == [
        pb.Key(
            key_id="x",
            algorithm="ES256",
            created_at=1795518230,
            state="published",
            foreign=True,
            next_change="signs",
            next_change_at=1795518530,
        )
    ]


async def test_generate_passes_size_and_algorithm_on(run: Running) -> None:
    """Size and algorithm of the request reach the lifecycle."""
    async with grpc.aio.insecure_channel(run.address) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        await stub.GenerateNewKeys(pb.GenerateNewKeysRequest(size=4096))
        await stub.GenerateNewKeys(pb.GenerateNewKeysRequest(algorithm="ES256"))
    assert run.lifecycle.asked == [("generate", None, 4096), ("generate", "ES256", None)]


async def test_remove_without_a_kid(run: Running) -> None:
    """RemoveKey without a kid is INVALID_ARGUMENT and removes nothing."""
    async with grpc.aio.insecure_channel(run.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await admin_pb2_grpc.AdminServiceStub(channel).RemoveKey(pb.RemoveKeyRequest())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert run.lifecycle.asked == []


async def test_status(start_admin: Callable[..., Any]) -> None:
    """GetStatus has the server's version, whether and why it issues no tokens, and the caller."""
    async with start_admin(
        access="grant",
        status=lambda: ServerStatus(
            version="1.2.3",
            commit="abc",
            issuer="https://issuer.example",
            jwks="bucket/.well-known/jwks.json",
            signing_key_id="tb-1",
            reasons=[Problem("starting", "node: starting")],
            notes=[Problem("jwks_stale", "jwks: stale")],
        ),
    ) as run:
        run.caller = msgspec.structs.replace(
            run.caller, capabilities={"tailbone.dev/cap/admin": as_json({"roles": ["operator"]})}
        )
        async with grpc.aio.insecure_channel(run.address) as channel:
            answer = await admin_pb2_grpc.AdminServiceStub(channel).GetStatus(pb.GetStatusRequest())
    assert len(run.peers) == 1
    assert answer.started_at > 1_700_000_000
    answer.started_at = 0
    assert answer == pb.GetStatusResponse(
        version="1.2.3",
        commit="abc",
        ready=False,
        reasons=["node: starting", "jwks: stale"],
        signing_key_id="tb-1",
        issuer="https://issuer.example",
        jwks="bucket/.well-known/jwks.json",
        caller="dev@example.com",
        roles=["viewer", "operator"],
    )


async def test_acl_warns_once_at_start(run: Running) -> None:
    """With access by ACL, the start warns that every user who reaches the port is admitted."""
    assert [level for level, _, _ in run.log.lines] == ["warning"]


async def test_grant_starts_without_a_warning(granting: Running) -> None:
    """With access by grant, the start logs nothing."""
    assert granting.log.lines == []


async def test_a_socket_that_cannot_be_made(run: Running, tmp_path: Path) -> None:
    """It is an error, and the server can still be closed."""
    other = server(run)
    with pytest.raises(AddressInUseError):
        await other.start(tmp_path / "no-such-folder" / "admin.sock")
    await other.close(0.0)


async def test_a_path_with_odd_characters(run: Running, tmp_path: Path) -> None:
    """The socket is at its path, even if the path has characters that a URI escapes."""
    other = server(run)
    path = tmp_path / "a b%41#?" / "admin.sock"
    path.parent.mkdir()
    await other.start(path)
    assert path.is_socket()
    await other.close(0.0)


async def test_close_waits_for_a_change(run: Running) -> None:
    """A running change is completed within the grace."""
    run.lifecycle.gate = asyncio.Event()
    async with grpc.aio.insecure_channel(run.address) as channel:
        asked = asyncio.ensure_future(
            admin_pb2_grpc.AdminServiceStub(channel).GenerateNewKeys(pb.GenerateNewKeysRequest())
        )
        await run.lifecycle.entered.wait()
        closing = asyncio.create_task(run.server.close(30.0))
        run.lifecycle.gate.set()
        assert (await asked).key.key_id == "tb-1795518232"
        await closing


async def test_close_cancels_a_change_after_the_grace(run: Running) -> None:
    """Its log line says so."""
    run.lifecycle.gate = asyncio.Event()
    async with grpc.aio.insecure_channel(run.address) as channel:
        asked = asyncio.ensure_future(
            admin_pb2_grpc.AdminServiceStub(channel).GenerateNewKeys(pb.GenerateNewKeysRequest())
        )
        await run.lifecycle.entered.wait()
        await asyncio.wait_for(run.server.close(0.05), 10)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await asked
    assert [line["outcome"] for line in run.log.calls] == ["cancelled"]


async def test_a_silent_connection_has_ten_seconds(
    start_admin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its place among the connections no longer."""
    options = dict(service._OPTIONS)
    assert options["grpc.server_handshake_timeout_ms"] == 10_000
    monkeypatch.setattr(service, "_OPTIONS", (options | {"grpc.server_handshake_timeout_ms": 200}).items())
    async with start_admin() as run:
        reader, writer = await asyncio.open_connection("127.0.0.1", run.port)
        async with asyncio.timeout(10):
            await reader.read()
        writer.close()


async def test_a_path_that_is_not_utf_8(run: Running) -> None:
    """It is one call that fails: the server goes on."""
    names = ((b":path", b"/service/\xff"), (b":authority", b"x"), (b"content-type", b"application/grpc"))
    # POST and http from the static table, and literals (RFC 7541 sections 6.1 and 6.2.2).
    fields = b"\x83\x86" + b"".join(
        bytes([0, len(name)]) + name + bytes([len(value)]) + value
        for name, value in (*names, (b"te", b"trailers"))
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", run.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0")
    writer.write(len(fields).to_bytes(3, "big") + b"\x01\x05\0\0\0\x01" + fields)
    kind, flags = 0, 0
    async with asyncio.timeout(10):
        # Until the field block that ends the answer (RFC 9113 section 6.2).
        while not (kind == 1 and flags & 1):
            frame = await reader.readexactly(9)
            kind, flags = frame[3], frame[4]
            await reader.readexactly(int.from_bytes(frame[:3], "big"))
    writer.close()
    async with grpc.aio.insecure_channel(run.address) as channel:
        await admin_pb2_grpc.AdminServiceStub(channel).ListKeys(pb.ListKeysRequest())


async def test_close_twice(run: Running) -> None:
    """Closing again, also at the same moment, does nothing."""
    await asyncio.gather(run.server.close(1.0), run.server.close(1.0))
    await run.server.close(1.0)


async def test_close_before_start(run: Running) -> None:
    """A server that was never started can be closed."""
    await server(run).close(1.0)
