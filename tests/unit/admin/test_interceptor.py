"""What every call passes: the caller is known, errors become statuses, and one line is logged."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
import pytest
from harness.grants import as_json
from hypothesis import given
from hypothesis import strategies as st

from tailbone import errors
from tailbone.admin import interceptor
from tailbone.admin._proto import admin_pb2 as pb
from tailbone.admin._proto import admin_pb2_grpc
from tailbone.admin.interceptor import STATUSES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from harness.admin import Running

METHODS = {
    "ListKeys": pb.ListKeysRequest(),
    "GetStatus": pb.GetStatusRequest(),
    "GenerateNewKeys": pb.GenerateNewKeysRequest(),
    "RemoveKey": pb.RemoveKeyRequest(key_id="tb-1795518230"),
}
NEEDED = {"ListKeys": 1, "GetStatus": 1, "GenerateNewKeys": 2, "RemoveKey": 3}
ROLES = {"none": 0, "viewer": 1, "operator": 2, "admin": 3}


async def call(run: Running, method: str, request: Any = None) -> Any:
    async with grpc.aio.insecure_channel(run.address) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        return await getattr(stub, method)(METHODS[method] if request is None else request)


async def refusal(run: Running, method: str, request: Any = None) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(run, method, request)
    return caught.value


def hold(run: Running, *roles: str) -> None:
    assert run.caller is not None
    run.caller = msgspec.structs.replace(
        run.caller, capabilities={"tailbone.dev/cap/admin": as_json({"roles": [*roles]})}
    )


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", METHODS)
async def test_roles_over_the_wire(granting: Running, role: str, method: str) -> None:
    """With access by grant, a method needs its role; a call with a lower one reaches no key."""
    hold(granting, role)
    if ROLES[role] >= NEEDED[method]:
        await call(granting, method)
        assert [line["outcome"] for line in granting.log.calls] == ["ok"]
    else:
        assert (await refusal(granting, method)).code() is grpc.StatusCode.PERMISSION_DENIED
        assert [line["outcome"] for line in granting.log.calls] == ["forbidden"]
        assert granting.lifecycle.asked == []


async def test_the_line_of_a_refused_call_has_the_request(granting: Running) -> None:
    """It says, for example, which key the caller wanted to remove."""
    hold(granting, "operator")
    await refusal(granting, "RemoveKey")
    (line,) = granting.log.calls
    assert (line["outcome"], line["key_id"]) == ("forbidden", "tb-1795518230")


async def test_refused_calls_are_one_line_and_a_count(granting: Running) -> None:
    """A caller without a role cannot fill the disk; on a full disk no token can be issued."""
    hold(granting)
    for _ in range(5):
        await refusal(granting, "ListKeys")
    await granting.server.close(1.0)
    first, *others = granting.log.calls
    assert {line["outcome"] for line in granting.log.calls} == {"forbidden"}
    assert "count" not in first
    assert len(others) <= 2
    assert sum(line["count"] for line in others) == 4


async def test_a_refused_call_with_a_malformed_request_is_forbidden(granting: Running) -> None:
    """The lack of a role counts, not the malformed request."""
    async with grpc.aio.insecure_channel(granting.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/proto.AdminService/RemoveKey")(b"\xff")
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert [line["outcome"] for line in granting.log.calls] == ["forbidden"]


@pytest.mark.parametrize("access", ["acl", "grant"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("who", ["unknown", "shared", "expired"])
async def test_unknown_shared_and_expired_callers_are_refused_in_both_modes(
    start_admin: Callable[..., Any], access: str, method: str, who: str
) -> None:
    """They are refused whatever their role, with one log line."""
    async with start_admin(access=access) as run:
        hold(run, "admin")
        run.caller = None if who == "unknown" else msgspec.structs.replace(run.caller, **{who: True})
        refused = await refusal(run, method)
        assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
        assert [line["outcome"] for line in run.log.calls] == [f"{who}_caller"]
        assert run.lifecycle.asked == []


async def test_the_line_of_a_person(run: Running) -> None:
    """A call's line has the caller, its node, the request and the outcome."""
    await call(run, "GenerateNewKeys", pb.GenerateNewKeysRequest(size=3072, algorithm="RS256"))
    (line,) = run.log.calls
    took = line.pop("took_ms")
    assert re.fullmatch(r"\[fd7a:115c:a1e0::2\]:\d+", line.pop("address"))
    assert line == {
        "method": "GenerateNewKeys",
        "caller": "dev@example.com",
        "sub": "user:123",
        "node": "laptop.dev.tailnet.test",
        "size": 3072,
        "algorithm": "RS256",
        "key_id": "tb-1795518232",
        "outcome": "ok",
    }
    assert took >= 0


async def test_the_line_of_a_tagged_node(run: Running) -> None:
    """A tagged node is named by its tags, its subject by the node."""
    run.caller = msgspec.structs.replace(run.caller, tags=("tag:ci", "tag:build"), login="", user_id=0)
    await call(run, "ListKeys")
    assert [(line["caller"], line["sub"]) for line in run.log.calls] == [("tag:ci,tag:build", "node:nDev")]


async def test_the_peer_is_the_bridges_abstract_name(run: Running) -> None:
    """grpc names the peer by the abstract name of the bridge's end, percent-encoded."""
    await call(run, "ListKeys")
    assert run.peers[0].startswith("unix-abstract:tailnet/00112233aabbccdd/admin/%5Bfd7a:115c:a1e0::2%5D:")


async def test_the_line_of_an_unknown_caller_has_its_address(run: Running) -> None:
    """It has the tailnet address, and no name."""
    run.caller = None
    await refusal(run, "ListKeys")
    (line,) = run.log.calls
    assert line["address"].startswith("[fd7a:115c:a1e0::2]:")
    assert not {"caller", "sub", "node"} & set(line)


async def test_the_random_part_of_the_peers_name_is_not_logged(run: Running) -> None:
    """A log line has only the tailnet address of the peer's name."""
    await call(run, "ListKeys")
    run.caller = None
    await refusal(run, "ListKeys")
    assert "00112233aabbccdd" in run.peers[0]
    assert "00112233aabbccdd" not in repr(run.log.lines)


async def test_a_kid_from_the_wire_is_made_safe_for_the_log(run: Running) -> None:
    """Its control characters are replaced, and it is truncated."""
    await refusal(run, "RemoveKey", pb.RemoveKeyRequest(key_id="tb-1\n\x1b[2J" + "x" * 5000))
    (line,) = run.log.calls
    assert line["key_id"].startswith("tb-1\ufffd\ufffd[2Jx")
    assert len(line["key_id"]) <= 512


async def test_a_method_that_does_not_exist(run: Running) -> None:
    """An unknown method is UNIMPLEMENTED, for a known caller, and logged."""
    async with grpc.aio.insecure_channel(run.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/proto.AdminService/DropAll")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert [(line["method"], line["outcome"]) for line in run.log.calls] == [
        ("DropAll", "method_not_allowed")
    ]


async def test_a_request_too_large(run: Running) -> None:
    """A request of more than 64 KiB is RESOURCE_EXHAUSTED, is logged, and reaches no key."""
    refused = await refusal(run, "RemoveKey", pb.RemoveKeyRequest(key_id="x" * 70_000))
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert [line["outcome"] for line in run.log.calls] == ["malformed_request"]
    assert run.lifecycle.asked == []


@given(raw=st.binary(), method=st.sampled_from(["GenerateNewKeys", "ListKeys", "RemoveKey", "GetStatus"]))
def test_any_bytes_are_a_request_or_malformed(raw: bytes, method: str) -> None:
    """Any bytes are either a request or refused as malformed; there is no other exception."""
    parse = getattr(pb, f"{method}Request").FromString
    handler = grpc.unary_unary_rpc_method_handler(None, request_deserializer=parse)
    try:
        interceptor._decoded(raw, handler).SerializeToString()
    except errors.MalformedRequestError:
        return


async def test_two_requests_in_one_call(run: Running) -> None:
    """A call that sends two requests is INVALID_ARGUMENT, and neither is carried out."""
    async with grpc.aio.insecure_channel(run.address) as channel:
        stream = channel.stream_unary("/proto.AdminService/GenerateNewKeys")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream(iter([b"", b""]))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert run.lifecycle.asked == []


async def test_a_request_that_never_arrives(run: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call without a request is refused after its time limit."""
    monkeypatch.setattr(interceptor, "REQUEST_TIME_S", 0.05)

    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with grpc.aio.insecure_channel(run.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary("/proto.AdminService/ListKeys")(never())
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "the request did not arrive in time",
    )


FAILURES = [
    (errors.UnknownKeyError, grpc.StatusCode.NOT_FOUND),
    (errors.KeyStateError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.KeyFileError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.NoSigningKeyError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.StoreError, grpc.StatusCode.UNAVAILABLE),
    (errors.StoreConflictError, grpc.StatusCode.ABORTED),
    (errors.StoreDeniedError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.ForeignDocumentError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.UnconditionalStoreError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.ConfigError, grpc.StatusCode.INVALID_ARGUMENT),
]


@pytest.mark.parametrize(("kind", "status"), FAILURES)
async def test_errors_are_statuses(
    run: Running, kind: type[errors.TailboneError], status: grpc.StatusCode
) -> None:
    """An error's short text and code reach the caller under its status; the detail reaches the log only."""
    run.lifecycle.fails = kind("the short text", detail="s3://secret-place")
    refused = await refusal(run, "GenerateNewKeys")
    codes = [value for name, value in refused.trailing_metadata() or () if name == "tailbone-code"]
    assert (refused.code(), refused.details(), codes) == (status, "the short text", [kind.code])
    assert "secret-place" not in repr(refused)
    assert [(line["outcome"], line["detail"]) for line in run.log.calls] == [(kind.code, "s3://secret-place")]


async def test_an_unexpected_exception_is_internal(run: Running) -> None:
    """The caller gets INTERNAL without the exception's text; the one log line has the exception."""
    run.lifecycle.fails = RuntimeError("the inner text")
    refused = await refusal(run, "GenerateNewKeys")
    assert refused.code() is grpc.StatusCode.INTERNAL
    assert "inner text" not in repr(refused)
    level, _, facts = run.log.lines[-1]
    assert (level, facts["outcome"], facts["exc_info"]) == ("error", "internal", run.lifecycle.fails)


def below(kind: type[errors.TailboneError]) -> set[type[errors.TailboneError]]:
    return {kind}.union(*map(below, kind.__subclasses__()))


@pytest.mark.parametrize(
    "kind",
    below(errors.RequestError) | below(errors.AccessError) | below(errors.StoreError),
    ids=lambda kind: kind.__name__,
)
def test_every_error_of_requests_access_and_store_has_a_status(kind: type[errors.TailboneError]) -> None:
    """None of them is INTERNAL, which means a bug in the server."""
    assert errors.status_in(STATUSES, kind) is not grpc.StatusCode.INTERNAL


class FullDisk:
    """An audit log whose lines cannot be written."""

    def info(self, event: str, **facts: Any) -> None:
        raise OSError(28, "no space left on /var/log")


@pytest.mark.parametrize("method", METHODS)
async def test_a_call_that_cannot_be_logged_is_refused(start_admin: Callable[..., Any], method: str) -> None:
    """The caller gets no answer and does not see the log's error; nothing is changed."""
    async with start_admin(audit=FullDisk()) as run:
        refused = await refusal(run, method)
    codes = [value for name, value in refused.trailing_metadata() or () if name == "tailbone-code"]
    assert (refused.code(), codes) == (grpc.StatusCode.UNAVAILABLE, ["log_unavailable"])
    assert "/var/log" not in repr(refused)
    assert {asked[0] for asked in run.lifecycle.asked} <= {"list"}


async def test_a_health_check_needs_no_line(start_admin: Callable[..., Any]) -> None:
    """A monitor that asks every few seconds fills no log."""
    async with start_admin(audit=FullDisk()) as run, grpc.aio.insecure_channel(run.address) as channel:
        assert await channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
    assert [level for level, event, _ in run.log.lines if event == "admin call"] == ["debug"]


async def test_a_change_is_logged_before_it_is_made(run: Running) -> None:
    """The first line says who changes what, the last one how it ended."""
    run.lifecycle.gate = asyncio.Event()
    asked = asyncio.create_task(call(run, "RemoveKey"))
    await run.lifecycle.entered.wait()
    level, event, facts = run.log.lines[-1]
    assert (level, event, facts["caller"]) == ("info", "admin call begins", "dev@example.com")
    assert (facts["method"], facts["key_id"]) == ("RemoveKey", "tb-1795518230")
    run.lifecycle.gate.set()
    await asked
    assert [line["outcome"] for line in run.log.calls] == ["ok"]


async def test_a_change_goes_on_when_its_caller_hangs_up(run: Running) -> None:
    """The change is completed, and its log line has the outcome."""
    run.lifecycle.gate = asyncio.Event()
    asked = asyncio.create_task(call(run, "GenerateNewKeys"))
    await run.lifecycle.entered.wait()
    asked.cancel()
    await asyncio.wait([asked])
    run.lifecycle.gate.set()
    await run.server.close(5.0)
    assert [line["outcome"] for line in run.log.calls] == ["ok"]
    assert "tb-1795518232" in run.lifecycle.keys
