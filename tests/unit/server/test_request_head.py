"""HTTP/1 is read strictly: what could be understood in two ways is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tailbone.errors import BodyTooLargeError, MalformedRequestError, RequestError
from tailbone.server.request_head import BODY_LIMIT, HEAD_LIMIT, Body, Head, head_end, parse_head

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

CHUNKED = {
    "empty": b"0\r\n\r\n",
    "one chunk": b"5\r\nhello\r\n0\r\n\r\n",
    "two chunks": b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
    "capital digits": b"A\r\n0123456789\r\n0\r\n\r\n",
    "leading zeros": b"0005\r\nhello\r\n000\r\n\r\n",
    "CR LF in the data": b"4\r\n\r\n\r\n\r\n0\r\n\r\n",
    "extensions": b'5;a;b=c ; d="e;\\"f"\r\nhello\r\n0;x\r\n\r\n',
    "trailers": b"0\r\nX: 1\r\nY:\r\n\r\n",
    "the longest": b"4000\r\n" + b"x" * 0x4000 + b"\r\n0\r\n\r\n",
}

BAD_CHUNKS = {
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "no digits": b"xyz\r\nhello\r\n0\r\n\r\n",
    "a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "below zero": b"-1\r\nhello\r\n0\r\n\r\n",
    "an underscore": b"1_0\r\n",
    "a space before": b" 5\r\nhello\r\n0\r\n\r\n",
    "a space after": b"5 \r\nhello\r\n0\r\n\r\n",
    "seventeen digits": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    "a bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "a bare CR after the size": b"5\rhello\r\n0\r\n\r\n",
    "a bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "an extension without a name": b"5;\r\nhello\r\n0\r\n\r\n",
    "an open quotation mark": b'5;a="b\r\nhello\r\n0\r\n\r\n',
    "more data than the size": b"5\r\nhello!\r\n0\r\n\r\n",
    "data without its end": b"5\r\nhello0\r\n\r\n",
    "a trailer without a colon": b"0\r\nX\r\n\r\n",
    "a folded trailer": b"0\r\nX: 1\r\n 2\r\n\r\n",
    "a request for a trailer": b"0\r\nGET / HTTP/1.1\r\n\r\n",
    "a NUL": b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n",
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
    """Each field has its place, and of the target path and query are kept apart as they came."""
    head = (
        b"POST /%69ssue?audience=a%20b?c HTTP/1.1\r\nhost: Tailbone:80\r\nConnection: x, Close\r\n"
        b"Expect: 100-Continue\r\nContent-Length: 5\r\nOrigin: null\r\nSec-Fetch-Site: None\r\n"
        b'If-None-Match: W/"a"\r\nIf-None-Match: "B"'
    )
    assert parse_head(head) == Head(
        method="POST",
        path="/%69ssue",
        query="audience=a%20b?c",
        host="Tailbone:80",
        keep_alive=False,
        persist_by_field=False,
        length=5,
        expects_continue=True,
        origin=True,
        fetch_site="none",
        if_none_match='W/"a", "B"',
    )


@pytest.mark.parametrize(
    ("head", "keep_alive", "persist_by_field"),
    [
        (b"GET / HTTP/1.1\r\nHost: a", True, False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close", False, False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, CLOSE", False, False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed", True, False),
        (b"GET / HTTP/1.0", False, False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive", True, True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close", False, True),
    ],
)
def test_whether_the_connection_stays(head: bytes, keep_alive: bool, persist_by_field: bool) -> None:
    """RFC 9112 section 9.3: HTTP/1.1 stays unless told to close, HTTP/1.0 closes unless told to stay."""
    read = parse_head(head)
    assert (read.keep_alive, read.persist_by_field) == (keep_alive, persist_by_field)


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
    """It is refused before it is sent; also when the number itself is longer than Python converts."""
    head = parse_head(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + length)
    with pytest.raises(BodyTooLargeError):
        Body(head.length)


def test_an_expectation_without_a_body_waits_for_nothing() -> None:
    """RFC 9110 section 10.1.1: 100 Continue is for a body that is held back, and unknown to HTTP/1.0."""
    expecting = b"\r\nHost: a\r\nExpect: 100-continue"
    assert not parse_head(b"POST / HTTP/1.1" + expecting).expects_continue
    assert not parse_head(b"POST / HTTP/1.0" + expecting + b"\r\nContent-Length: 5").expects_continue


@given(st.binary(max_size=200))
@example(b"GET / HTTP/1.1\r\nHost: a")
def test_any_bytes_are_read_or_refused(head: bytes) -> None:
    """No input is a fault of ours."""
    try:
        read = parse_head(head)
    except RequestError:
        return
    assert read.method


@given(st.sampled_from(sorted(GOOD.values())), st.data())
def test_one_byte_changed_is_read_or_refused(head: bytes, data: st.DataObject) -> None:
    """Near misses too; and what is read has neither line end nor control character in any part."""
    position = data.draw(st.integers(0, len(head) - 1))
    changed = head[:position] + data.draw(st.binary(max_size=3)) + head[position + 1 :]
    try:
        read = parse_head(changed)
    except RequestError:
        return
    assert (read.method + read.path + read.query + read.host).isprintable()


# --- where a head ends


@pytest.mark.parametrize(
    ("arrived", "end"),
    [
        (b"G", -1),
        (b"\r", -1),
        (b"GET / HTTP/1.1\r", -1),
        (b"GET / HTTP/1.1\r\n", -1),
        (b"GET / HTTP/1.1\r\n\r", -1),
        (b"GET / HTTP/1.1\r\n\r\n", 14),
        (b"GET / HTTP/1.1\r\n\r\nGET ", 14),
    ],
)
def test_where_the_head_ends(arrived: bytes, end: int) -> None:
    """At the first empty line, and not before it is there."""
    assert head_end(bytearray(arrived), 0) == end


@pytest.mark.parametrize(
    "arrived",
    [
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\nHost: a\n\n",
        b"GET / HTTP/1.1\rH",
        b"GET /\0",
        b" GET",
        b"\n",
        b"\x16\x03\x01\x02\x00",
        b"\xffGET",
    ],
)
def test_what_can_become_no_head_is_refused_at_once(arrived: bytes) -> None:
    """TLS to the wrong port, or lines that end in LF, would otherwise wait for their time to be over."""
    with pytest.raises(MalformedRequestError):
        head_end(bytearray(arrived), 0)


def test_what_is_bad_across_two_pieces_is_found_in_the_second() -> None:
    """A CR that ended the first piece is followed by something else than LF."""
    assert head_end(bytearray(b"GET / HTTP/1.1\r"), 0) == -1
    with pytest.raises(MalformedRequestError):
        head_end(bytearray(b"GET / HTTP/1.1\rH"), 15)


def test_the_longest_head() -> None:
    """8192 bytes are read, one more is not, whether its end has arrived or not."""
    longest = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    longest += b"x" * (HEAD_LIMIT - len(longest))
    assert head_end(bytearray(longest + b"\r\n\r\n"), 0) == HEAD_LIMIT
    assert head_end(bytearray(longest + b"\r\n\r"), 0) == -1
    for too_long in (longest + b"x\r\n\r\n", longest + b"xxxx"):
        with pytest.raises(MalformedRequestError, match="longer than 8192 bytes"):
            head_end(bytearray(too_long), 0)


@given(st.sampled_from(sorted(GOOD.values())), st.data())
def test_the_end_is_found_however_the_head_is_cut(head: bytes, data: st.DataObject) -> None:
    """A head arrives in any pieces; none but the last has an end."""
    whole = head + b"\r\n\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=5)))
    searched = 0
    for cut in cuts:
        assert head_end(bytearray(whole[:cut]), searched) == -1
        searched = cut
    assert head_end(bytearray(whole), searched) == len(head)


# --- bodies


@pytest.mark.parametrize("body", CHUNKED.values(), ids=CHUNKED)
def test_a_chunked_body_is_skipped_exactly(body: bytes) -> None:
    """What follows it is the next request's."""
    buffer = bytearray(body + b"GET ")
    assert Body(None).skip(buffer)
    assert buffer == b"GET "


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_bad_chunks(body: bytes) -> None:
    """Where the next request begins would be a guess."""
    with pytest.raises(MalformedRequestError):
        Body(None).skip(bytearray(body))


@pytest.mark.parametrize(
    "body",
    [
        b"4001\r\n",
        b"ffffffffffffffff\r\n",
        b"4000\r\n" + b"x" * 0x4000 + b"\r\n1\r\n",
        b"1\r\nx\r\n" * (BODY_LIMIT + 1),
        b"1;" + b"x" * BODY_LIMIT,
        b"0\r\n" + b"X: 1\r\n" * BODY_LIMIT,
    ],
    ids=["one chunk", "a huge chunk", "the second chunk", "many chunks", "an extension", "trailers"],
)
def test_a_chunked_body_that_is_too_long(body: bytes) -> None:
    """Neither content nor framing is read without end; the limit is known from a size before its data."""
    with pytest.raises(BodyTooLargeError):
        Body(None).skip(bytearray(body))


def test_a_body_of_known_length_is_skipped_exactly() -> None:
    """Also when it comes in pieces."""
    body, buffer = Body(5), bytearray(b"he")
    assert not body.skip(buffer)
    buffer += b"lloGET "
    assert body.skip(buffer)
    assert buffer == b"GET "


@given(
    st.lists(st.binary(min_size=1, max_size=20), max_size=6),
    st.lists(st.integers(1, 9), max_size=20),
    st.binary(max_size=9),
)
def test_chunks_are_skipped_however_they_are_cut(
    chunks: list[bytes], pieces: list[int], following: bytes
) -> None:
    """Any body, in any pieces, ends where it ends."""
    wire = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    body, buffer, sent = Body(None), bytearray(), 0
    for piece in [*pieces, len(wire)]:
        buffer += wire[sent : sent + piece]
        sent = min(len(wire), sent + piece)
        if sent == len(wire):
            break
        assert not body.skip(buffer)
    buffer += following
    assert body.skip(buffer)
    assert buffer == following


@given(st.binary(max_size=60))
def test_any_bytes_are_a_body_or_refused(body: bytes) -> None:
    """No body is a fault of ours."""
    try:
        complete = Body(None).skip(bytearray(body))
    except RequestError:
        return
    assert not complete or b"\r\n\r\n" in body
