"""The wire format: compatible with the Go program, and with stubs generated from admin.proto."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto

from tailbone.admin._proto import __main__ as generator
from tailbone.admin._proto import admin_pb2 as pb

if TYPE_CHECKING:
    from harness.admin import Running

ROOT = Path(__file__).parents[3]
STUBS = ROOT / "tailbone/admin/_proto"

# 0x0a: field 1, length-delimited; 0x12: field 2; 0x20: field 4, varint (proto3 encoding).
KID = b"\x0a\x0dtb-1795518230"
KEY = KID + b"\x12\x05RS256" + b"\x20\x96\xde\x95\xd8\x06"


async def call(run: Running, method: str, request: bytes) -> bytes:
    async with grpc.aio.insecure_channel(run.address) as channel:
        answer: bytes = await channel.unary_unary(f"/proto.AdminService/{method}")(request)
        return answer


def message(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


async def test_go_clients_list(run: Running) -> None:
    """The Go client's ListKeys, an empty message, is answered with keys that begin like the Go program's."""
    answer = await call(run, "ListKeys", b"")
    assert (answer[:1], answer[2 : 2 + len(KEY)]) == (b"\x0a", KEY)


async def test_go_clients_generate(run: Running) -> None:
    """The Go client's GenerateNewKeys, an empty message, leaves size and algorithm to the server."""
    answer = await call(run, "GenerateNewKeys", b"")
    assert run.lifecycle.asked == [("generate", None, None)]
    assert answer[2:].startswith(b"\x0a\x0dtb-1795518232\x12\x05RS256\x20")


async def test_go_clients_remove(run: Running) -> None:
    """The Go client's RemoveKey, the kid as field 1, is answered with the remaining keys: here none."""
    assert await call(run, "RemoveKey", KID) == b""
    assert run.lifecycle.asked == [("remove", "tb-1795518230")]


async def test_unknown_fields_are_ignored(run: Running) -> None:
    """Fields of a newer client that this server does not know have no effect."""
    await call(run, "GenerateNewKeys", message(15, b"later") + message(9, b"too"))
    assert run.lifecycle.asked == [("generate", None, None)]


async def test_a_size_of_zero_is_sent_as_zero(run: Running) -> None:
    """A size of 0 on the wire reaches the lifecycle, which refuses it; the default is an absent size."""
    await call(run, "GenerateNewKeys", b"\x08\x00")
    assert run.lifecycle.asked == [("generate", None, 0)]


async def test_a_malformed_message(run: Running) -> None:
    """A request that is not protobuf is INVALID_ARGUMENT without the parser's message, and is logged."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(run, "ListKeys", b"\xff\xff")
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "the request is not a valid message of this method",
    )
    assert [line["outcome"] for line in run.log.calls] == ["malformed_request"]


def test_a_go_servers_key_is_read() -> None:
    """A Go server's Key, three fields, is read with an empty state."""
    key = pb.ListKeysResponse.FromString(message(1, KEY)).keys[0]
    assert (key.key_id, key.algorithm, key.created_at, key.state) == (
        "tb-1795518230",
        "RS256",
        1795518230,
        "",
    )


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("Key", {"key_id": 1, "algorithm": 2, "created_at": 4}),
        ("GenerateNewKeysResponse", {"key": 1}),
        ("ListKeysRequest", {}),
        ("ListKeysResponse", {"keys": 1}),
        ("RemoveKeyRequest", {"key_id": 1}),
        ("RemoveKeyResponse", {"keys": 1}),
    ],
)
def test_numbers_stay(name: str, fields: dict[str, int]) -> None:
    """The Go program's fields keep their numbers, and what was added to Key starts at 5."""
    numbers = {field.name: field.number for field in getattr(pb, name).DESCRIPTOR.fields}
    added = {number for field, number in numbers.items() if field not in fields}
    assert {field: numbers[field] for field in fields} == fields
    assert not added or min(added) >= 5


def test_number_three_of_key_stays_reserved() -> None:
    """Number 3 of Key cannot be used again."""
    copied = DescriptorProto()
    pb.Key.DESCRIPTOR.CopyToProto(copied)
    assert [(gap.start, gap.end) for gap in copied.reserved_range] == [(3, 4)]


def test_stubs_are_fresh(tmp_path: Path) -> None:
    """The committed stubs are, byte for byte, what the generator writes."""
    made = generator.generate(tmp_path)
    assert [path.name for path in made] == ["admin_pb2.py", "admin_pb2.pyi", "admin_pb2_grpc.py"]
    assert {path.name: path.read_bytes() for path in made} == {
        path.name: (STUBS / path.name).read_bytes() for path in made
    }


def test_guards_are_the_declared_bounds() -> None:
    """The stubs load from the lower bounds of pyproject.toml on."""
    declared = " ".join(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])

    def bound(package: str) -> tuple[int, ...]:
        found = re.search(rf"\b{package}>=([\d.]+)", declared)
        assert found is not None
        return tuple(int(part) for part in (found[1] + ".0.0").split(".")[:3])

    assert bound("protobuf") == generator.PROTOBUF_FLOOR
    assert bound("grpcio") == generator.GRPC_FLOOR
