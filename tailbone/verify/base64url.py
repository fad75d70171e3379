"""Strict base64url (RFC 7515 section 2): one text for each sequence of bytes, no padding, nothing ignored."""

from __future__ import annotations

from binascii import Error as EncodingError
from binascii import a2b_base64, b2a_base64
from typing import Final

_TO_STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
_FROM_STANDARD: Final = bytes.maketrans(b"+/", b"-_")
_PADDING: Final = (b"", b"", b"==", b"=")
# The last character of two or three has bits that are not used and must be zero (RFC 4648 section 3.5).
_LAST: Final = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")


def encode(data: bytes) -> bytes:
    """Encode without padding."""
    return b2a_base64(data, newline=False).translate(_FROM_STANDARD).rstrip(b"=")


def decode(text: bytes) -> bytes:
    """Decode.

    Raises:
        binascii.Error: the text is not what ``encode`` returns for any bytes. It is a ValueError.
    """
    rest = len(text) % 4
    if rest == 1 or (rest and text[-1] not in _LAST[rest]):
        raise EncodingError("not base64url")
    return a2b_base64(text.translate(_TO_STANDARD) + _PADDING[rest], strict_mode=True)
