"""The standard health service of the admin API."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from harness.admin import Running


@pytest.mark.parametrize("service", ["", "proto.AdminService"])
async def test_health(granting: Running, service: str) -> None:
    """The standard health service answers SERVING to a known caller without a role, logged at debug."""
    async with grpc.aio.insecure_channel(granting.address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service)
        )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert [(level, facts["method"]) for level, _, facts in granting.log.lines] == [("debug", "Check")]


async def test_health_of_an_unknown_service(run: Running) -> None:
    """A service that is not served here is NOT_FOUND, as the health protocol says, without a traceback."""
    async with grpc.aio.insecure_channel(run.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert [(facts["outcome"], "exc_info" in facts) for facts in run.log.calls] == [("not_found", False)]


async def test_health_refuses_unknown_callers(run: Running) -> None:
    """An unknown caller gets PERMISSION_DENIED, as from the admin service."""
    run.caller = None
    async with grpc.aio.insecure_channel(run.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_watch_of_an_unknown_service(run: Running) -> None:
    """A watch of an unknown service receives SERVICE_UNKNOWN and stays open, as the protocol says."""
    async with grpc.aio.insecure_channel(run.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="other"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        assert watch.done() is False


async def test_a_watch_ends_with_the_server(run: Running) -> None:
    """A health watch receives NOT_SERVING at the close, and does not delay it by the grace."""
    async with grpc.aio.insecure_channel(run.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        closing = asyncio.create_task(run.server.close(60.0))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await asyncio.wait_for(closing, 10)
    assert [facts["method"] for facts in run.log.calls] == ["Watch"]
