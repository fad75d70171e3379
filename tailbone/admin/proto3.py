"""The messages of admin.proto as the client writes and reads them, without protobuf.

Importing protobuf would be a quarter of the time that ``tailbone keys list`` takes, for messages of a hundred
bytes. Tests hold the tables against the generated stubs, and the encoding against protobuf's own.
The encoding: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from tailbone.errors import AdminError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED: Final = {_FIXED64: 8, _FIXED32: 4}
_BITS: Final = 64


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        name: as in admin.proto.
        kind: how it is read; ``message`` for one whose fields are ``fields``.
        repeated: whether its values make a list.
        fields: by number.
    """

    name: str
    kind: Literal["text", "integer", "flag", "message"] = "text"
    repeated: bool = False
    fields: Mapping[int, Field] = {}


KEY: Final = {
    1: Field("key_id"),
    2: Field("algorithm"),
    4: Field("created_at", "integer"),
    5: Field("state"),
    6: Field("foreign", "flag"),
    7: Field("next_change"),
    8: Field("next_change_at", "integer"),
}
GENERATE_REQUEST: Final = {1: Field("size", "integer"), 2: Field("algorithm")}
GENERATE_RESPONSE: Final = {1: Field("key", "message", fields=KEY)}
KEYS_RESPONSE: Final = {1: Field("keys", "message", repeated=True, fields=KEY)}
REMOVE_REQUEST: Final = {1: Field("key_id")}
STATUS_RESPONSE: Final = {
    1: Field("version"),
    2: Field("commit"),
    3: Field("started_at", "integer"),
    4: Field("ready", "flag"),
    5: Field("reasons", repeated=True),
    6: Field("signing_key_id"),
    7: Field("issuer"),
    8: Field("jwks"),
    9: Field("caller"),
    10: Field("roles", repeated=True),
}

_NOTHING: Final = {"text": "", "integer": 0, "flag": False}


def encode(values: Mapping[str, str | int | None], fields: Mapping[int, Field]) -> bytes:
    """Write a message.

    Args:
        values: by field name; None is left out, everything else is written, also where it is the default.
        fields: of the message; texts and integers.
    """
    written = b""
    for number, field in fields.items():
        value = values.get(field.name)
        if isinstance(value, str):
            text = value.encode()
            written += _varint(number << 3 | _LENGTH) + _varint(len(text)) + text
        elif value is not None:
            written += _varint(number << 3 | _VARINT) + _varint(value % 2**_BITS)
    return written


def decode(data: bytes, fields: Mapping[int, Field]) -> dict[str, Any]:
    """Read a message; fields that are not there have their default, and unknown ones are skipped.

    Args:
        data: the message's bytes.
        fields: of the message.

    Raises:
        AdminError: it is no message, or none of this kind.
    """
    read: dict[str, Any] = {
        field.name: [] if field.repeated else _NOTHING.get(field.kind) for field in fields.values()
    }
    try:
        for number, value in _items(data):
            field = fields.get(number)
            if field is None or isinstance(value, int) is not (field.kind in ("integer", "flag")):
                continue
            item = _value(field, value)
            if field.repeated:
                read[field.name].append(item)
            else:
                read[field.name] = item
    except (ValueError, IndexError):
        raise AdminError("the server's answer is no message of the admin API: another program?") from None
    for field in fields.values():
        if field.kind == "message" and read[field.name] is None:
            read[field.name] = decode(b"", field.fields)
    return read


def _value(field: Field, value: int | bytes) -> Any:
    if isinstance(value, bytes):
        return decode(value, field.fields) if field.kind == "message" else value.decode()
    if field.kind == "flag":
        return value != 0
    return value - 2**_BITS if value >> (_BITS - 1) else value


def _items(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Give field numbers and values, of the two wire types that admin.proto uses."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        wire_type = tag & 7
        if wire_type == _VARINT:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
            continue
        if wire_type == _LENGTH:
            length, at = _read_varint(data, at)
        else:
            # No field of ours is fixed: a later version's is skipped. Groups, types 3 and 4, proto3 has none.
            length = _FIXED.get(wire_type, len(data) + 1)
        if at + length > len(data):
            raise ValueError("cut short")
        if wire_type == _LENGTH:
            yield tag >> 3, data[at : at + length]
        at += length


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        octet = data[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value % 2**_BITS, at
    raise ValueError("a varint has at most ten octets")
