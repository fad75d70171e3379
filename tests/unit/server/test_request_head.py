"""HTTP/1 is read strictly: what could be understood in two ways is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tailbone.errors import MalformedRequestError, RequestError
from tailbone.server.request_head import BODY_LIMIT, Head, parse_head

TOO_LONG = str(BODY_LIMIT + 1).encode()

GOOD = {
    "least": b"GET /_healthz HTTP/1.1\r\nHost: a",
    "no space after the colon": b"GET / HTTP/1.1\r\nHost:a",
    "white space around a value": b"GET / HTTP/1.1\r\nHost: \t a \t ",
    "an empty Host": b"GET / HTTP/1.1\r\nHost:",
    "an empty value": b"GET / HTTP/1.1\r\nHost: a\r\nX-Empty:",
    "names in any case": b"GET / HTTP/1.1\r\nhOST: a",
    "obs-text in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX-Name: \xc3\xa9\xff",
    "HTTP/1.0 without Host": b"GET / HTTP/1.0",
    "an IPv6 Host": b"GET / HTTP/1.1\r\nHost: [fd7a:115c:a1e0::1]:80",
    "a Host that ends in a colon": b"GET / HTTP/1.1\r\nHost: a:",
    "a URL as target": b"GET http://a/b?c HTTP/1.1\r\nHost: a",
    "a URL in capitals": b"GET HTTP://A:80/b HTTP/1.1\r\nHost: a:80",
    "a URL without a path": b"GET http://a HTTP/1.1\r\nHost: a",
    "OPTIONS of the whole server": b"OPTIONS * HTTP/1.1\r\nHost: a",
    "CONNECT": b"CONNECT b:443 HTTP/1.1\r\nHost: a",
    "a method of its own": b"M-SEARCH / HTTP/1.1\r\nHost: a",
    "unknown fields twice": b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: 2",
    "Connection twice": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: a\r\nConnection: close",
    "a length with zeros": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00000000000000000005",
    "the longest body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 16384",
    "chunked in capitals": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked",
    "an upgrade that is ignored": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket",
}

MALFORMED = {
    "nothing": b"",
    "garbage": b"hello",
    "one word": b"GET",
    "HTTP/0.9": b"GET /",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a",
    "HTTP/2": b"PRI * HTTP/2.0",
    "HTTP/3.1": b"GET / HTTP/3.1\r\nHost: a",
    "http in small letters": b"GET / http/1.1\r\nHost: a",
    "HTTP/1.10": b"GET / HTTP/1.10\r\nHost: a",
    "HTTP/01.1": b"GET / HTTP/01.1\r\nHost: a",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: a",
    "two spaces before the version": b"GET /  HTTP/1.1\r\nHost: a",
    "a tab for a space": b"GET\t/ HTTP/1.1\r\nHost: a",
    "a space at the end": b"GET / HTTP/1.1 \r\nHost: a",
    "a space at the start": b" GET / HTTP/1.1\r\nHost: a",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: a",
    "a colon in the method": b"GE:T / HTTP/1.1\r\nHost: a",
    "a NUL in the target": b"GET /\0 HTTP/1.1\r\nHost: a",
    "a byte over 127 in the target": b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a",
    "a fragment": b"GET /issue#x HTTP/1.1\r\nHost: a",
    "a backslash": b"GET /\\issue HTTP/1.1\r\nHost: a",
    "a target without a slash": b"GET issue HTTP/1.1\r\nHost: a",
    "a star for another method": b"GET * HTTP/1.1\r\nHost: a",
    "host and port for another method": b"GET b:443 HTTP/1.1\r\nHost: a",
    "an https URL": b"GET https://a/ HTTP/1.1\r\nHost: a",
    "a URL of another host": b"GET http://b/ HTTP/1.1\r\nHost: a",
    "a URL of another port": b"GET http://a:81/ HTTP/1.1\r\nHost: a",
    "a URL with a user": b"GET http://u@a/ HTTP/1.1\r\nHost: a",
    "a URL without a host": b"GET http:///issue HTTP/1.1\r\nHost: a",
    "a URL beside an empty Host": b"GET http://a/ HTTP/1.1\r\nHost:",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : a",
    "a tab before the colon": b"GET / HTTP/1.1\r\nHost\t: a",
    "a folded line": b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2",
    "a folded line by a tab": b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\t2",
    "a folded first line": b"GET / HTTP/1.1\r\n Host: a\r\nHost: a",
    "a line without a colon": b"GET / HTTP/1.1\r\nHost: a\r\nX",
    "a line without a name": b"GET / HTTP/1.1\r\nHost: a\r\n: x",
    "an empty line within": b"GET / HTTP/1.1\r\n\r\nHost: a",
    "a bare LF": b"GET / HTTP/1.1\r\nHost: a\nX: 1",
    "a bare LF after the request line": b"GET / HTTP/1.1\nHost: a",
    "a bare CR": b"GET / HTTP/1.1\r\nHost: a\rX: 1",
    "a CR before CR LF": b"GET / HTTP/1.1\r\nHost: a\r\r\nX: 1",
    "a NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\0",
    "a NUL in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX\0: 1",
    "a control character in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01",
    "DEL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f",
    "a form feed before a value": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\x0c5",
    "a byte over 127 in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX\xff: 1",
    "a space in a name": b"GET / HTTP/1.1\r\nHost: a\r\nContent Length: 1",
    "HTTP/1.1 without Host": b"GET / HTTP/1.1\r\nX: 1",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b",
    "two Hosts that agree": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a",
    "two Hosts, one empty": b"GET / HTTP/1.1\r\nHost:\r\nHost: a",
    "two Hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b",
    "a Host with a path": b"GET / HTTP/1.1\r\nHost: a/b",
    "a Host with a user": b"GET / HTTP/1.1\r\nHost: u@a",
    "a Host with a space": b"GET / HTTP/1.1\r\nHost: a b",
    "a Host with two ports": b"GET / HTTP/1.1\r\nHost: a:1:2",
    "a Host with a port in words": b"GET / HTTP/1.1\r\nHost: a:http",
    "a Host of a bare IPv6 address": b"GET / HTTP/1.1\r\nHost: fd7a:115c:a1e0::1",
    "a Host with an open bracket": b"GET / HTTP/1.1\r\nHost: [::1",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
    "chunks and length": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
    "chunks and a length of 0": b"POST / HTTP/1.1\r\nHost:a\r\nContent-Length:0\r\nTransfer-Encoding:chunked",
    "chunks and no length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\nTransfer-Encoding: chunked",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6",
    "two lengths that agree": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5",
    "two lengths in one field": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5",
    "an empty length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:",
    "a length with a sign": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5",
    "a length below zero": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5",
    "a length in hexadecimal": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5",
    "a length with an underscore": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0",
    "a length with a fraction": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0",
    "a length in words": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: five",
    "a length in other digits": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \u0665".encode(),
    "another coding": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip",
    "two codings": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked",
    "chunked not last": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity",
    "identity": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity",
    "an empty coding": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:",
    "chunked twice": b"POST / HTTP/1.1\r\nHost:a\r\nTransfer-Encoding:chunked\r\nTransfer-Encoding:chunked",
    "chunked and a parameter": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b",
    "chunked with a vertical tab": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked",
    "another expectation": b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok",
}


@pytest.mark.parametrize("head", GOOD.values(), ids=GOOD)
def test_what_is_read(head: bytes) -> None:
    """Strict does not mean that correct requests of unusual form are refused."""
    assert isinstance(parse_head(head), Head)


@pytest.mark.parametrize("head", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed(head: bytes) -> None:
    """Each breaks RFC 9112 or RFC 9110, or is understood differently by different readers."""
    with pytest.raises(MalformedRequestError):
        parse_head(head)


def test_everything_that_is_used_of_a_head() -> None:
    """Each field has its place; the query stays as it came."""
    head = (
        b"POST /%69ssue?audience=a%20b?c HTTP/1.1\r\nhost: Tailbone:80\r\nConnection: x, Close\r\n"
        b"Expect: 100-Continue\r\nContent-Length: 5\r\nOrigin: null\r\nSec-Fetch-Site: None\r\n"
        b'If-None-Match: W/"a"\r\nIf-None-Match: "B"'
    )
    assert parse_head(head) == Head(
        query="audience=a%20b?c",
        host="Tailbone:80",
        keep_alive=False,
        length=5,
        origin=True,
        fetch_site="none",
        if_none_match='W/"a", "B"',
    )


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\nHost: a", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, CLOSE", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed", True),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close", False),
    ],
)
def test_whether_the_connection_stays(head: bytes, keep_alive: bool) -> None:
    """RFC 9112 section 9.3: HTTP/1.1 stays unless told to close, HTTP/1.0 closes unless told to stay."""
    assert parse_head(head).keep_alive == keep_alive


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        (b"", 0),
        (b"\r\nContent-Length: 0", 0),
        (b"\r\nContent-Length: 5", 5),
        (b"\r\nContent-Length: 16384", 16384),
        (b"\r\nTransfer-Encoding: chunked", None),
    ],
)
def test_how_long_the_body_is(fields: bytes, length: int | None) -> None:
    """RFC 9112 section 6.3; without both fields a request has no body."""
    assert parse_head(b"POST / HTTP/1.1\r\nHost: a" + fields).length == length


@pytest.mark.parametrize("length", [TOO_LONG, b"99999999999999999999", b"9" * 5000, b"0" * 50 + TOO_LONG])
def test_a_body_that_is_announced_too_long(length: bytes) -> None:
    """The number is bounded, also where it is longer than Python converts."""
    assert parse_head(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + length).length == BODY_LIMIT + 1


@given(st.binary(max_size=200))
@example(b"GET / HTTP/1.1\r\nHost: a")
def test_any_bytes_are_read_or_refused(head: bytes) -> None:
    """No input is a fault of ours."""
    try:
        read = parse_head(head)
    except RequestError:
        return
    assert read.query.isprintable()


@given(st.sampled_from(sorted(GOOD.values())), st.data())
def test_one_byte_changed_is_read_or_refused(head: bytes, data: st.DataObject) -> None:
    """Near misses too; and what is read has neither line end nor control character in any part."""
    position = data.draw(st.integers(0, len(head) - 1))
    changed = head[:position] + data.draw(st.binary(max_size=3)) + head[position + 1 :]
    try:
        read = parse_head(changed)
    except RequestError:
        return
    assert (read.query + read.host).isprintable()
