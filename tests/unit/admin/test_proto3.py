"""The client's own reading and writing of messages, against protobuf and the generated stubs."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from tailbone.admin import proto3
from tailbone.admin._proto import admin_pb2 as pb
from tailbone.errors import AdminError

TABLES = {
    "Key": proto3.KEY,
    "GenerateNewKeysRequest": proto3.GENERATE_REQUEST,
    "GenerateNewKeysResponse": proto3.GENERATE_RESPONSE,
    "ListKeysResponse": proto3.KEYS_RESPONSE,
    "RemoveKeyRequest": proto3.REMOVE_REQUEST,
    "RemoveKeyResponse": proto3.KEYS_RESPONSE,
    "GetStatusResponse": proto3.STATUS_RESPONSE,
}
KINDS = {
    FieldDescriptorProto.TYPE_STRING: "text",
    FieldDescriptorProto.TYPE_INT32: "integer",
    FieldDescriptorProto.TYPE_INT64: "integer",
    FieldDescriptorProto.TYPE_BOOL: "flag",
    FieldDescriptorProto.TYPE_MESSAGE: "message",
}
INT64 = st.integers(min_value=-(2**63), max_value=2**63 - 1)
KEYS = st.fixed_dictionaries(
    {
        "key_id": st.text(),
        "algorithm": st.text(),
        "created_at": INT64,
        "state": st.text(),
        "foreign": st.booleans(),
        "next_change": st.text(),
        "next_change_at": INT64,
    }
)


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_the_stubs(name: str) -> None:
    """Each table has every field of its message, with number, type and repetition."""
    stub = DescriptorProto()
    getattr(pb, name).DESCRIPTOR.CopyToProto(stub)
    table = {number: (field.name, field.kind, field.repeated) for number, field in TABLES[name].items()}
    assert table == {
        field.number: (field.name, KINDS[field.type], field.label == field.LABEL_REPEATED)
        for field in stub.field
    }


def test_tables_hold_keys() -> None:
    """The fields of a message within a message are a key's."""
    within = [
        field.fields for table in TABLES.values() for field in table.values() if field.kind == "message"
    ]
    assert within == [proto3.KEY] * 3


@given(keys=st.lists(KEYS))
def test_reads_what_protobuf_writes(keys: list[dict[str, Any]]) -> None:
    """A list of keys as protobuf writes it is read field by field."""
    written = pb.ListKeysResponse(keys=[pb.Key(**key) for key in keys]).SerializeToString()
    assert proto3.decode(written, proto3.KEYS_RESPONSE) == {"keys": keys}


@given(size=st.none() | st.integers(min_value=-(2**31), max_value=2**31 - 1), algorithm=st.none() | st.text())
def test_writes_what_protobuf_writes(size: int | None, algorithm: str | None) -> None:
    """A request is written byte for byte as protobuf writes it, absent fields absent."""
    expected = pb.GenerateNewKeysRequest(size=size, algorithm=algorithm).SerializeToString()
    assert proto3.encode({"size": size, "algorithm": algorithm}, proto3.GENERATE_REQUEST) == expected


def test_defaults_of_what_is_not_there() -> None:
    """Fields that are not sent have proto3's defaults, also those of a key that is not there."""
    assert proto3.decode(b"", proto3.GENERATE_RESPONSE)["key"] == {
        "key_id": "",
        "algorithm": "",
        "created_at": 0,
        "state": "",
        "foreign": False,
        "next_change": "",
        "next_change_at": 0,
    }
    assert proto3.decode(b"", proto3.STATUS_RESPONSE)["reasons"] == []


@pytest.mark.parametrize(
    "later",
    [
        b"\x78\x05",  # 15: varint
        b"\x7a\x03abc",  # 15: length-delimited
        b"\x79abcdefgh",  # 15: 64 bits
        b"\x7dabcd",  # 15: 32 bits
        b"\x08\x05",  # 1, a text, as a varint
        b"\x22\x01x",  # 4, an integer, as a text
    ],
)
def test_skips_what_a_later_version_sends(later: bytes) -> None:
    """Unknown fields of every wire type are skipped, and so are known ones of another type."""
    key = later + b"\x0a\x04tb-1" + later
    assert proto3.decode(key, proto3.KEY)["key_id"] == "tb-1"


@pytest.mark.parametrize(
    "broken",
    [
        b"\x0a",  # a tag without a value
        b"\x0a\x05abc",  # cut short
        b"\x20\x80",  # a varint that does not end
        b"\x20" + b"\x80" * 10 + b"\x01",  # a varint of eleven octets
        b"\x0a\x01\xff",  # no UTF-8
        b"\x7b",  # a group
        b"\x7f",  # no wire type
        b"<html>",
    ],
)
def test_what_is_no_message(broken: bytes) -> None:
    """Bytes that are no message are an error in one line."""
    with pytest.raises(AdminError, match="another program"):
        proto3.decode(broken, proto3.KEY)


@given(data=st.binary())
def test_no_bytes_break_the_reader(data: bytes) -> None:
    """Any bytes are read, or are an AdminError."""
    try:
        read = proto3.decode(data, proto3.KEYS_RESPONSE)
    except AdminError:
        return
    assert list(read) == ["keys"]
