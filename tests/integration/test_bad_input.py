"""Bad requests get a clear error over the tailnet, and have no other effect."""

from __future__ import annotations

import json
import re
import socket
import time
from base64 import urlsafe_b64decode
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.servers import Server
    from harness.tailnet import Route, Tailnet

AUDIENCE = "sts.example"


@pytest.fixture(scope="module")
def issuer(shared_server: Callable[..., Server]) -> Server:
    """A server with one audience and one allowed host."""
    return shared_server("--audience", AUDIENCE, "--allowed-host", "tokens.example")


@pytest.fixture(scope="module")
def route(issuer: Server, tailnet: Tailnet) -> Iterator[Route]:
    """The route from a person's node to the issuer."""
    with tailnet.caller("dev@example.com") as caller:
        yield caller.to(issuer.name)


def tokens_so_far(issuer: Server, route: Route) -> int:
    """Return how many tokens are in the log. A token issued here shows that the log was read to its end."""
    payload = route.issue().json["token"].split(".")[1]
    jti = json.loads(urlsafe_b64decode(f"{payload}=="))["jti"]
    until(lambda: any(line["jti"] == jti for line in issuer.events("token issued")), jti)
    return len(issuer.events("token issued"))


@pytest.fixture
def no_token(issuer: Server, route: Route) -> Iterator[None]:
    """Check that the test gets no token, and that the server keeps running."""
    before = tokens_so_far(issuer, route)
    yield
    assert tokens_so_far(issuer, route) == before + 1


def received(connection: socket.socket) -> bytes:
    """Return everything until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


class Refused(NamedTuple):
    """The parts of a raw answer."""

    status: int
    fields: dict[str, str]
    body: Any


def refused(answer: bytes) -> Refused:
    """Parse the answer to a refused request, which must be JSON."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert int(fields["content-length"]) == len(body)
    assert fields["content-type"] == "application/json"
    return Refused(int(first.split(" ")[1]), fields, json.loads(body))


HOST = "Host: tokens.example\r\n"
MALFORMED = {
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "no version": b"POST /issue\r\n" + HOST.encode() + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no host": b"POST /issue HTTP/1.1\r\n\r\n",
    "two hosts": f"POST /issue HTTP/1.1\r\n{HOST}{HOST}\r\n".encode(),
    "host is a list": b"POST /issue HTTP/1.1\r\nHost: tokens.example, other\r\n\r\n",
    "length beside chunked": (
        f"POST /issue HTTP/1.1\r\n{HOST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ).encode(),
    "two lengths": (
        f"POST /issue HTTP/1.1\r\n{HOST}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"
    ).encode(),
    "negative length": f"POST /issue HTTP/1.1\r\n{HOST}Content-Length: -1\r\n\r\n".encode(),
    "unknown coding": f"POST /issue HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n".encode(),
    "bad chunk": f"POST /issue HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n".encode(),
    "space before the colon": b"POST /issue HTTP/1.1\r\nHost : tokens.example\r\n\r\n",
    "folded line": f"POST /issue HTTP/1.1\r\n{HOST}X-A: b\r\n c\r\n\r\n".encode(),
    "bare LF": b"POST /issue HTTP/1.1\nHost: tokens.example\n\n",
    "NUL in a value": f"POST /issue HTTP/1.1\r\n{HOST}X-A: \0\r\n\r\n".encode(),
    "long head": f"POST /issue HTTP/1.1\r\n{HOST}X-A: {'a' * 9000}\r\n\r\n".encode(),
    "cut body": f"POST /issue HTTP/1.1\r\n{HOST}Content-Length: 10\r\n\r\nabc".encode(),
    "host and URL differ": f"POST http://other.example/issue HTTP/1.1\r\n{HOST}\r\n".encode(),
}


@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_requests_get_400(route: Route, request_: bytes) -> None:
    """Bytes that are not HTTP, or are ambiguous, get 400, and the connection ends."""
    with route.connect() as connection:
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        answer = refused(received(connection))
    assert (answer.status, answer.body["error"]) == (400, "malformed_request")
    assert answer.fields["connection"] == "close"


@pytest.mark.usefixtures("no_token")
def test_an_issuer_that_is_not_a_url_has_no_discovery_document(route: Route) -> None:
    """The path exists, and the answer says why there is nothing."""
    answer = route.get("/.well-known/openid-configuration")
    assert (answer.status, answer.json["error"]) == (404, "not_found")
    assert answer.json["message"] == "no discovery document: this server's issuer is not a URL"


UNKNOWN_PATHS = [
    "/issue/",
    "/Issue",
    "/%69ssue",
    "//issue",
    "/_healthz/x",
]


@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize("path", UNKNOWN_PATHS)
def test_unknown_paths_get_404(route: Route, path: str) -> None:
    """An unknown path gets 404, whatever else is wrong with the request."""
    answer = route.request("BREW", path, headers={"Host": "evil.example", "Origin": "https://evil.example"})
    assert (answer.status, answer.json["error"]) == (404, "not_found")


@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/issue", "POST"),
        ("HEAD", "/issue", "POST"),
        ("PUT", "/issue", "POST"),
        ("OPTIONS", "/issue", "POST"),
        ("post", "/issue", "POST"),
        ("POST", "/_healthz", "GET, HEAD"),
        ("POST", "/_readyz", "GET, HEAD"),
        ("DELETE", "/.well-known/jwks.json", "GET, HEAD"),
    ],
)
def test_other_methods_get_405(route: Route, method: str, path: str, allow: str) -> None:
    """An unsupported method gets 405 with Allow, before the Host is checked."""
    answer = route.request(method, path, headers={"Host": "evil.example"})
    assert (answer.status, answer.headers["Allow"]) == (405, allow)
    if method != "HEAD":
        assert answer.json["error"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/_healthz", "/_readyz", "/.well-known/jwks.json"])
def test_head_is_answered_like_get(route: Route, path: str) -> None:
    """HEAD gets the answer of GET, without the body."""
    get, head = route.get(path), route.request("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(get.body))


@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize(
    "host", ["evil.example", "localhost", "127.0.0.1", "tokens.example.evil", "[::1]:80", ""]
)
def test_wrong_host(route: Route, host: str) -> None:
    """A Host that is not this server gets 421, which prevents DNS rebinding."""
    answer = route.issue(headers={"Host": host, "Origin": "https://evil.example"})
    assert (answer.status, answer.json["error"]) == (421, "wrong_host")


def test_right_hosts(route: Route, issuer: Server) -> None:
    """Addresses, short and full name, and allowed hosts are accepted, in any case and with any port."""
    name = issuer.name
    ipv4, ipv6 = issuer.addresses
    spellings = [ipv4, f"{ipv4}:80", f"[{ipv6}]", f"[{ipv6}]:8080", name, name.upper()]
    spellings += [f"{name}.dev.tailnet.test", f"{name}.dev.tailnet.test.", "Tokens.Example:443"]
    answers = {host: route.issue(headers={"Host": host}).status for host in spellings}
    assert answers == dict.fromkeys(spellings, 200)


@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_browser(route: Route, headers: dict[str, str]) -> None:
    """A web page's request gets 403, even if its query is also wrong."""
    answer = route.issue("?nonsense=1", headers=headers)
    assert (answer.status, answer.json["error"]) == (403, "browser_request")


def test_a_web_page_cannot_call_the_admin_api(issuer: Server, tailnet: Tailnet, route: Route) -> None:
    """It speaks only HTTP/2 with prior knowledge: a browser's HTTP/1.1 gets no answer and changes nothing."""
    with tailnet.caller("dev@example.com") as page:
        answer = page.to(issuer.name, 50051).raw(
            b"POST /proto.AdminService/GenerateNewKeys HTTP/1.1\r\nHost: tailbone\r\n"
            b"Content-Type: application/grpc\r\nContent-Length: 5\r\n\r\n" + bytes(5)
        )
    assert not answer.startswith(b"HTTP/1.1")
    assert b"grpc-status" not in answer
    assert len(route.get("/.well-known/jwks.json").json["keys"]) == 1


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Mode": "cors", "User-Agent": "node", "Accept-Language": "*"}],
    ids=str,
)
def test_other_sec_fetch_fields_are_accepted(route: Route, headers: dict[str, str]) -> None:
    """Node's fetch sends such fields too."""
    assert route.issue(headers=headers).status == 200


@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?scope=admin", 400, "bad_parameter"),
        ("?Audience=sts.example", 400, "bad_parameter"),
        ("?audience=sts.example&audience=sts.example", 400, "bad_parameter"),
        ("?audience=", 400, "bad_parameter"),
        ("?audience=%zz", 400, "bad_parameter"),
        ("?audience=other.example", 403, "audience_not_allowed"),
        ("?audience=STS.example", 403, "audience_not_allowed"),
        ("?ttl=5", 400, "bad_parameter"),
        ("?ttl=0s", 400, "bad_parameter"),
        ("?ttl=-5m", 400, "bad_parameter"),
        ("?ttl=20m1s", 400, "bad_parameter"),
        ("?ttl=1h&audience=sts.example", 400, "bad_parameter"),
        ("?ttl=5m&ttl=5m", 400, "bad_parameter"),
        ("?ttl=99999999999999999999h", 400, "bad_parameter"),
    ],
)
def test_bad_queries_are_refused(route: Route, query: str, status: int, code: str) -> None:
    """An unknown or bad parameter gets 400, and an audience that is not on the list gets 403."""
    answer = route.issue(query)
    assert (answer.status, answer.json["error"]) == (status, code)


@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Length": "16385"}, b""),
        ({"Content-Length": "99999999999999999999"}, b""),
        ({"Transfer-Encoding": "chunked"}, b"4001\r\n" + b"a" * 0x4001 + b"\r\n0\r\n\r\n"),
    ],
    ids=["announced", "absurd", "chunked"],
)
def test_a_large_body_gets_413(route: Route, headers: dict[str, str], body: bytes) -> None:
    """A body may have 16 KiB."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = refused(route.raw(f"POST /issue HTTP/1.1\r\n{HOST}{lines}\r\n".encode() + body))
    assert (answer.status, answer.body["error"]) == (413, "body_too_large")


@pytest.mark.usefixtures("no_token")
def test_a_client_that_is_still_sending_can_read_the_refusal(route: Route) -> None:
    """413 arrives whole although most of the body was never read."""
    head = f"POST /issue HTTP/1.1\r\n{HOST}Content-Length: 1048576\r\n\r\n".encode()
    for _ in range(20):
        with route.connect() as connection:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(head + bytes(1048576))
            answer = refused(received(connection))
        assert (answer.status, answer.body["error"]) == (413, "body_too_large")


def test_the_body_is_ignored(route: Route) -> None:
    """Up to 16 KiB of any content are accepted, without effect."""
    assert (
        route.issue(
            body=b'{"sub": "admin"}'.ljust(16 * 1024), headers={"Content-Type": "application/json"}
        ).status
        == 200
    )


@pytest.mark.usefixtures("no_token")
def test_unfinished_requests_are_dropped(route: Route) -> None:
    """A request that is incomplete after 10 s gets 408, and the connection ends."""
    unfinished = [
        b"POST /issue HT",
        f"POST /issue HTTP/1.1\r\n{HOST}".encode(),
        f"POST /issue HTTP/1.1\r\n{HOST}Content-Length: 10\r\n\r\nabc".encode(),
    ]
    began = time.monotonic()
    connections = [route.connect(20) for _ in unfinished]
    for connection, part in zip(connections, unfinished, strict=True):
        connection.sendall(part)
    answers = []
    for connection in connections:
        with connection:
            answers.append(refused(received(connection)))
    took_s = time.monotonic() - began
    assert [answer.status for answer in answers] == [408, 408, 408]
    assert 10 <= took_s < 12.5


def test_pipelined_requests_are_answered_in_order(route: Route) -> None:
    """Two requests in one packet get two answers: the second is not read as the body of the first."""
    one = f"POST /issue HTTP/1.1\r\n{HOST}Content-Length: 2\r\n\r\n{{}}"
    two = f"GET /nowhere HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"
    answer = route.raw((one + two).encode())
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"404"]


def test_refusals_are_logged(route: Route, issuer: Server) -> None:
    """A refusal is logged with its code and caller, and the answer does not echo the request."""
    answer = route.issue("?audience=secret-looking-thing")
    assert b"secret-looking-thing" not in answer.body
    line = until(
        lambda: next(
            (r for r in issuer.events("request refused") if r["code"] == "audience_not_allowed"), None
        ),
        "the refusal in the log",
    )
    assert line["sub"].startswith("user:")
    assert line["node"].endswith(".dev.tailnet.test")
