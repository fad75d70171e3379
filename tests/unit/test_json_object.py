"""JSON objects that come from elsewhere."""

from __future__ import annotations

import pytest

from tailbone.json_object import parse_object


@pytest.mark.parametrize("text", [b'{"a": [1]}', '{"a": [1]}'])
def test_an_object_is_read(text: bytes | str) -> None:
    """From bytes or from text."""
    assert parse_object(text) == {"a": [1]}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'"a"',
        b'{"a": 1',
        b'{"a": ' + b"[" * 100_000,
        b'{"a": "\xff"}',
        '{"a": 1}'.encode("utf-16"),
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": ' + b"1" * 5000 + b"}",
    ],
)
def test_anything_else_is_not_one(text: bytes) -> None:
    """Whatever is wrong with it, however deep."""
    assert parse_object(text) is None
