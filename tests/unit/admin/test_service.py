"""The server: its life, its answers, and the health service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st

from tailbone.admin._proto import admin_pb2 as pb
from tailbone.admin._proto import admin_pb2_grpc
from tailbone.admin.key import key_message
from tailbone.admin.service import AdminServer, AdminSettings
from tailbone.errors import AddressInUseError, ConfigError
from tailbone.keys.view import KeyInfo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Running


def info(key_id: str, **facts: Any) -> KeyInfo:
    usual = {"algorithm": "RS256", "created_at": 1795518230, "state": "active"}
    return KeyInfo(key_id=key_id, **usual | facts)


def server(run: Running, access: str = "acl") -> AdminServer:
    return AdminServer(
        lifecycle=run.lifecycle,
        identify=run.identify,
        access=access,
        capability="tailbone.dev/cap/admin",
        settings=AdminSettings(),
        log=run.log,
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


async def test_generate_passes_what_was_sent(run: Running) -> None:
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
    """GetStatus says what the server is, whether tokens can be had, why not, and who asks."""
    async with start_admin(
        access="grant",
        version="1.2.3",
        commit="abc",
        issuer="https://issuer.example",
        jwks="bucket/.well-known/jwks.json",
        signing_key_id=lambda: "tb-1",
        readiness=lambda: ["node: starting"],
        notes=lambda: ["jwks: stale"],
    ) as run:
        run.caller = msgspec.structs.replace(
            run.caller, capabilities={"tailbone.dev/cap/admin": [{"roles": ["operator"]}]}
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


@given(kid=st.text(), created=st.none() | st.integers() | st.floats(), when=st.none() | st.floats())
def test_no_odd_key_breaks_the_list(kid: str, created: float | None, when: float | None) -> None:
    """Whatever kid and times a foreign key has, protobuf carries it; a time that no calendar has is 0."""
    change = None if when is None else ("signs", when)
    sent = key_message(info(kid, created_at=created, next_change=change))
    read = pb.Key.FromString(sent.SerializeToString())
    assert 0 <= read.created_at <= 253_402_300_799
    assert 0 <= read.next_change_at <= 253_402_300_799


def test_half_a_surrogate_pair_is_spelt_out() -> None:
    """A kid that UTF-8 cannot carry is sent with an escape in the place."""
    assert key_message(info("a\ud800")).key_id == "a\\ud800"


async def test_access_must_be_a_mode(run: Running) -> None:
    """An access mode that does not exist is refused, rather than taken for the open one."""
    with pytest.raises(ConfigError):
        server(run, access="ACL")


async def test_acl_warns_once_at_start(run: Running) -> None:
    """With access by ACL, the start warns that whoever reaches the port is let in."""
    assert [level for level, _, _ in run.log.all] == ["warning"]


async def test_grant_does_not_warn(granting: Running) -> None:
    """With access by grant, the start warns of nothing."""
    assert granting.log.all == []


async def test_a_path_that_cannot_be_had(run: Running, tmp_path: Path) -> None:
    """A socket that cannot be made is an error, and the server can still be closed."""
    other = server(run)
    with pytest.raises(AddressInUseError):
        await other.start(tmp_path / "no-such-folder" / "admin.sock")
    await other.close(0.0)


async def test_a_path_with_odd_characters(run: Running, tmp_path: Path) -> None:
    """The socket stands where it was asked for, also where the path has what a URI would escape."""
    other = server(run)
    path = tmp_path / "a b%41#?" / "admin.sock"
    path.parent.mkdir()
    await other.start(path)
    assert path.is_socket()
    await other.close(0.0)


async def test_close_lets_a_change_end(run: Running) -> None:
    """Closing waits for a running change, within the grace."""
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


async def test_close_ends_a_change_that_does_not_end(run: Running) -> None:
    """After the grace a change is cancelled, and its line says so."""
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


async def test_close_twice(run: Running) -> None:
    """Closing again, also at the same moment, does nothing."""
    await asyncio.gather(run.server.close(1.0), run.server.close(1.0))
    await run.server.close(1.0)


async def test_close_before_start(run: Running) -> None:
    """A server that was never started can be closed."""
    await server(run).close(1.0)


@pytest.mark.parametrize("service", ["", "proto.AdminService"])
async def test_health(granting: Running, service: str) -> None:
    """The standard health service answers SERVING to a known caller without a role, logged at debug."""
    async with grpc.aio.insecure_channel(granting.address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service)
        )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert [(level, facts["method"]) for level, _, facts in granting.log.all] == [("debug", "Check")]


async def test_health_of_an_unknown_service(run: Running) -> None:
    """A service that is not served here is NOT_FOUND, as the health protocol says, without a traceback."""
    async with grpc.aio.insecure_channel(run.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert [(facts["outcome"], "exc_info" in facts) for facts in run.log.calls] == [("not_found", False)]


async def test_health_knows_its_caller(run: Running) -> None:
    """The health service refuses unknown callers, too."""
    run.caller = None
    async with grpc.aio.insecure_channel(run.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_health_of_all_services(run: Running) -> None:
    """The health service lists what is served: the server as a whole, and the admin service."""
    async with grpc.aio.insecure_channel(run.address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest())
    assert {name: status.status for name, status in answer.statuses.items()} == {
        "": 1,
        "proto.AdminService": 1,
    }


async def test_a_watch_of_an_unknown_service(run: Running) -> None:
    """A watch of a service that is not served hears SERVICE_UNKNOWN, and stays open, as the protocol says."""
    async with grpc.aio.insecure_channel(run.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="other"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        assert watch.done() is False


async def test_a_watch_ends_with_the_server(run: Running) -> None:
    """A health watch hears NOT_SERVING at the close, and does not hold it up for the grace."""
    async with grpc.aio.insecure_channel(run.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        closing = asyncio.create_task(run.server.close(60.0))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await asyncio.wait_for(closing, 10)
    assert [facts["method"] for facts in run.log.calls] == ["Watch"]
