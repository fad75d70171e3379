"""Strict parsing of HTTP/1 request heads: what two parsers could read differently is refused. Pure.

Sanic's own parser is lenient (a space before a colon, two Host fields, a bare LF). A proxy in front that is
lenient in another way would see other requests than those answered here. So the bytes of each head are
parsed again, before anything is answered.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from tailbone.errors import MalformedRequestError

HEAD_LIMIT: Final = 8192
"""The longest request line and header section together, in bytes."""

BODY_LIMIT: Final = 16 * 1024
"""How much of a body is read, in bytes."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# One pass over the whole head, in C: request line (RFC 9112 section 3, the characters of RFC 3986), then
# field lines (RFC 9112 section 5): the name ends at the colon; no folding, no control character, no bare CR.
_HEAD: Final = re.compile(
    rb"(?P<method>%b) (?P<target>[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%%]+) HTTP/1\.(?P<minor>[01])"
    rb"(?P<fields>(?:\r\n%b:[\t -~\x80-\xff]*)*)" % (_TOKEN, _TOKEN)
)
_REQUEST_LINE: Final = re.compile(rb"%b [^\s#]+ HTTP/1\.[01]" % _TOKEN)
_FIELD_LINE: Final = re.compile(rb"%b:[\t -~\x80-\xff]*" % _TOKEN)
# The fields that change what is answered; all others are only checked.
_READ_FIELDS: Final = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"expect",
        b"origin",
        b"sec-fetch-site",
        b"if-none-match",
    }
)
# host [ ":" port ] of RFC 9110 section 7.2: a reg-name without escapes, an IPv4 or a bracketed IPv6 address.
_AUTHORITY: Final = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"http://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)
_LENGTH: Final = re.compile(rb"[0-9]+")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a request head that are used.

    Attributes:
        query: what follows the first ``?``; empty if there is none.
        host: the Host field, or the host of an absolute-form target; empty for HTTP/1.0 without.
        keep_alive: whether the client lets the connection serve another request.
        length: bytes of the body, ``BODY_LIMIT + 1`` for any number above the limit; None for a chunked one.
        origin: whether there is an Origin field.
        fetch_site: the Sec-Fetch-Site field, lower case; "none" also without the field.
        if_none_match: the If-None-Match field; empty if there is none.
    """

    query: str
    host: str
    keep_alive: bool
    length: int | None
    origin: bool
    fetch_site: str
    if_none_match: str


def parse_head(head: bytes) -> Head:
    """Parse the request line and the header fields.

    Args:
        head: everything before the empty line.

    Raises:
        MalformedRequestError: it is neither HTTP/1.0 nor HTTP/1.1, or it is ambiguous.
    """
    match = _HEAD.fullmatch(head)
    if match is None:
        raise MalformedRequestError(_what_is_wrong(head))
    method, target, minor, lines = match.groups()
    http_1_1 = minor == b"1"
    fields = _fields(lines)
    host, query = _target(method, target, fields.get(b"host"), http_1_1=http_1_1)
    options = fields.get(b"connection", b"").lower()
    keep = b"keep-alive" in _list(options)
    expect = fields.get(b"expect", b"").lower()
    if expect not in (b"", b"100-continue"):
        raise MalformedRequestError("Expect: only 100-continue is known")
    length = _body_length(fields, http_1_1=http_1_1)
    return Head(
        query=query.decode("ascii"),
        host=host.decode("ascii"),
        keep_alive=(http_1_1 or keep) and b"close" not in _list(options),
        length=length,
        origin=b"origin" in fields,
        fetch_site=fields.get(b"sec-fetch-site", b"none").lower().decode("latin-1"),
        if_none_match=fields.get(b"if-none-match", b"").decode("latin-1"),
    )


def _fields(lines: bytes) -> dict[bytes, bytes]:
    """Return the fields that are read, by lower-case name; repeated ones joined (RFC 9110 section 5.3)."""
    fields: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in _READ_FIELDS:
            value = value.strip(b" \t")
            fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def _list(value: bytes) -> list[bytes]:
    return [item.strip(b" \t") for item in value.split(b",")] if value else []


def _target(method: bytes, target: bytes, host: bytes | None, *, http_1_1: bool) -> tuple[bytes, bytes]:
    """Return host and query (RFC 9112 section 3.2)."""
    if host is None and http_1_1:
        raise MalformedRequestError("Host is missing")
    # Two Host fields became a list, and no authority holds a comma followed by a space.
    if host is not None and _AUTHORITY.fullmatch(host) is None:
        raise MalformedRequestError("Host is not one host with at most one port")
    named = host or b""
    if not target.startswith(b"/"):
        if method == b"CONNECT" and _AUTHORITY.fullmatch(target) is not None:
            return named, b""
        if method == b"OPTIONS" and target == b"*":
            return named, b""
        match = _ABSOLUTE.fullmatch(target)
        if match is None:
            raise MalformedRequestError("the request target is a path, or an http:// URL")
        named, target = match.groups()
        if not named or _AUTHORITY.fullmatch(named) is None:
            raise MalformedRequestError("the URL names no host, or has more than host and port")
        # RFC 9112 lets the URL win; a reader that goes by Host would see another request.
        if host is not None and host.lower() != named.lower():
            raise MalformedRequestError("Host and the URL name different hosts")
    return named, target.partition(b"?")[2]


def _body_length(fields: dict[bytes, bytes], *, http_1_1: bool) -> int | None:
    """Return the length of the body in bytes, None for chunked (RFC 9112 section 6.3)."""
    coding = fields.get(b"transfer-encoding")
    length = fields.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise MalformedRequestError("Content-Length and Transfer-Encoding exclude each other")
        if coding.lower() != b"chunked" or not http_1_1:
            raise MalformedRequestError("Transfer-Encoding: only chunked is known, and only in HTTP/1.1")
        return None
    if length is None:
        return 0
    # Two fields became a list, which is not a number: also two that agree are refused.
    if _LENGTH.fullmatch(length) is None:
        raise MalformedRequestError("Content-Length is not one number")
    significant = length.lstrip(b"0")
    if len(significant) > len(str(BODY_LIMIT)):
        return BODY_LIMIT + 1
    return min(int(significant or b"0"), BODY_LIMIT + 1)


def _what_is_wrong(head: bytes) -> str:
    """Say which line of a malformed head is wrong."""
    request_line, *fields = head.split(b"\r\n")
    if _REQUEST_LINE.fullmatch(request_line) is None:
        return "the first line is METHOD TARGET HTTP/1.1 (or HTTP/1.0), with one space between"
    for number, line in enumerate(fields, start=1):
        if line[:1] in (b" ", b"\t"):
            return f"header line {number} is folded"
        if _FIELD_LINE.fullmatch(line) is None:
            return f"header line {number} is not NAME: VALUE"
    return "the request target holds characters that a URL does not"
