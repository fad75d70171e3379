"""Strict base64url."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbone.base64url import decode, encode


@given(st.binary(max_size=200))
def test_decoding_reverses_encoding(data: bytes) -> None:
    """The text is that of the standard library, without padding."""
    assert encode(data) == base64.urlsafe_b64encode(data).rstrip(b"=")
    assert decode(encode(data)) == data


@given(st.text("AQgwEB-_+/= \n!", max_size=12).map(str.encode))
def test_bytes_have_one_text(text: bytes) -> None:
    """A text decodes only if it is the one that encoding returns."""
    try:
        data = decode(text)
    except ValueError:
        return
    assert encode(data) == text


@pytest.mark.parametrize("text", [b"A", b"AA==", b"AB", b"AAB", b"A+/A", b"AA A", b"AAA\n", b"AA\xffA"])
def test_other_text_is_refused(text: bytes) -> None:
    """Padding, white space, the standard alphabet and unused bits are refused."""
    with pytest.raises(ValueError):
        decode(text)
