"""What each path answers, and which of several faults is named."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import jwt
import msgspec
import pytest

from tailbone.errors import NodeClosedError, Problem, TailnetError, UnknownCallerError
from tailbone.server import AllowedHosts, RateLimit
from tailbone.token.identity import Identity
from tailbone.token.signatures import SHARE

if TYPE_CHECKING:
    from conftest import Running, World

ISSUE = b"POST /issue HTTP/1.1\r\nHost: tailbone\r\n\r\n"

# In the order in which they are looked for.
FAULTS = (
    "malformed_request",
    "not_found",
    "method_not_allowed",
    "body_too_large",
    "wrong_host",
    "browser_request",
    "unknown_caller",
    "rate_limited",
    "bad_parameter",
    "audience_not_allowed",
    "no_signing_key",
)
STATUS = (400, 404, 405, 413, 421, 403, 403, 429, 400, 403, 503)


def exhausted() -> RateLimit:
    """Return a limit that the caller has reached."""
    limit = RateLimit(1, clock=lambda: 0.0)
    while limit.admits("nStable"):
        pass
    return limit


def with_faults(faults: tuple[str, ...], world: World) -> bytes:
    """Put the faults into a request and its surroundings."""
    if "unknown_caller" in faults:
        world.caller = UnknownCallerError("no node of this tailnet has your address")
    if "rate_limited" in faults:
        world.endpoints.rate_limit = exhausted()
    if "no_signing_key" in faults:
        world.signing = None
    query = {"bad_parameter": "ttl=x", "audience_not_allowed": "audience=other"}
    target = "/nowhere" if "not_found" in faults else "/issue"
    target += "?" + "&".join(text for fault, text in query.items() if fault in faults)
    fields = [
        "Host: evil.example" if "wrong_host" in faults else "Host: tailbone",
        *(["Origin: http://evil.example"] if "browser_request" in faults else []),
        *(["Content-Length: 16385"] if "body_too_large" in faults else []),
        *(["X : 1"] if "malformed_request" in faults else []),
    ]
    method = "PUT" if "method_not_allowed" in faults else "POST"
    return "\r\n".join([f"{method} {target.rstrip('?')} HTTP/1.1", *fields, "", ""]).encode()


# --- POST /issue


async def test_a_token_is_issued(running: Running, world: World) -> None:
    """200 with the token and its end in Unix seconds, as JSON that no cache keeps."""
    answer = await running.ask(ISSUE)
    assert (answer.status, answer.json.keys(), answer.json["expires_at"]) == (
        200,
        {"token", "expires_at"},
        1795519430,
    )
    assert (answer.fields["Content-Type"], answer.fields["Cache-Control"]) == ("application/json", "no-store")
    claims = jwt.decode(
        answer.json["token"],
        jwt.PyJWK(world.key.public_jwk()),
        issuer="https://issuer.example",
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )
    assert (claims["sub"], claims["user"], claims["exp"]) == ("user:123", "dev@example.com", 1795519430)


async def test_audience_and_ttl_are_granted(running: Running) -> None:
    """One audience on the list, and a lifetime below the longest."""
    answer = await running.ask(b"POST /issue?audience=sts.example&ttl=5m HTTP/1.1\r\nHost: tailbone\r\n\r\n")
    claims = jwt.decode(answer.json["token"], options={"verify_signature": False})
    assert (claims["aud"], claims["exp"]) == ("sts.example", 1795518530)


async def test_the_caller_is_who_the_transport_says(running: Running, world: World) -> None:
    """identify gets the peer name of the very connection, for every request anew."""
    client = await running.connect()
    await client.ask(ISSUE)
    await client.ask(ISSUE.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 100.64.0.9\r\n\r\n"))
    name = client.writer.get_extra_info("sockname")
    assert name.startswith(b"\0tailnet/")
    assert world.asked_for == [name, name]


async def test_one_line_for_a_token_and_never_the_token(running: Running, world: World) -> None:
    """sub, kid, jti, aud, node and address; whoever reads the log cannot use what it says."""
    answer = await running.ask(ISSUE.replace(b"/issue", b"/issue?audience=sts.example"))
    claims = jwt.decode(answer.json["token"], options={"verify_signature": False})
    assert world.audit.lines == [
        (
            "info",
            "token issued",
            {
                "sub": "user:123",
                "kid": "tb-1795518000",
                "jti": claims["jti"],
                "aud": "sts.example",
                "node": "laptop.dev.tailnet.test",
                "address": "100.64.0.2:50123",
            },
        )
    ]
    assert (world.log.lines, world.trail.lines) == ([], [])


async def test_without_its_line_no_token_leaves(running: Running, world: World) -> None:
    """A full disk stops the issuing, not the record of it; the caller hears nothing of disks."""
    world.audit.fails = OSError(28, "No space left on device")
    answer = await running.ask(ISSUE)
    assert (answer.status, answer.json) == (
        503,
        {
            "error": "log_unavailable",
            "message": "the server cannot log the token; /_readyz says when it can",
        },
    )
    assert [line.event for line in world.log.lines] == ["request refused"]


async def test_refused_tokens_are_audited(running: Running, world: World) -> None:
    """Each request to /issue that fails, with who asked and for what as far as that is known; no other."""
    for target in ("/issue?audience=other", "/issue?audience=other&dry_run=true", "/issue?ttl=x", "/nowhere"):
        await running.ask(f"POST {target} HTTP/1.1\r\nHost: tailbone\r\n\r\n".encode())
    await running.ask(ISSUE.replace(b"Host: tailbone", b"Host: evil.example"))
    who = {"sub": "user:123", "node": "laptop.dev.tailnet.test"}
    where = {"address": "100.64.0.2:50123"}
    assert world.trail.of("token refused") == [
        ("info", "token refused", {"outcome": "audience_not_allowed", **who, "aud": "other", **where}),
        ("info", "token refused", {"outcome": "bad_parameter", **who, **where}),
        ("info", "token refused", {"outcome": "wrong_host", **where}),
    ]
    await running.server.close(0.0)
    [*_, counted] = world.trail.lines
    assert (counted.fields["count"], counted.fields["dry_run"]) == (1, True)


async def test_a_node_that_asks_too_often(running: Running, world: World) -> None:
    """429 with Retry-After; one warning names the caller, and only requests that name it count."""
    world.endpoints.rate_limit = exhausted()
    client = await running.connect()
    asked = (b"POST /issue", b"GET /whoami", b"GET /", b"GET /metrics")
    answers = [await client.ask(ISSUE.replace(b"POST /issue", request)) for request in asked]
    assert [(answer.status, answer.fields["Retry-After"]) for answer in answers] == [(429, "1")] * 4
    assert answers[0].json == {
        "error": "rate_limited",
        "message": "your node makes more than 1 requests per second (server.rateLimit); "
        "try again in a second",
    }
    [line] = world.log.lines
    assert (line.level, line.fields["sub"], line.fields["node"]) == (
        "warn",
        "user:123",
        "laptop.dev.tailnet.test",
    )
    assert (await client.ask(b"GET /_healthz HTTP/1.1\r\nHost: tailbone\r\n\r\n")).status == 200


async def test_one_caller_cannot_take_all_places_for_signatures(running: Running, world: World) -> None:
    """Its share is in progress, the next is 503 with Retry-After, and another caller is served."""
    key = world.gate()
    waiting = [await running.connect() for _ in range(SHARE)]
    for client in waiting:
        client.send(ISSUE)
    await running.until(lambda: key.waiting == SHARE)
    refused = await running.ask(ISSUE)
    assert (refused.status, refused.json["error"]) == (503, "signing_busy")
    assert refused.fields["Retry-After"] == "1"
    assert isinstance(world.caller, Identity)
    world.caller = msgspec.structs.replace(world.caller, node_id="nOther")
    other = await running.connect()
    other.send(ISSUE)
    await running.until(lambda: key.waiting == SHARE + 1)
    key.gate.set()
    assert {(await client.response()).status for client in (*waiting, other)} == {200}


@pytest.mark.parametrize("field", [b"Sec-Fetch-Site: none", b"Sec-Fetch-Mode: cors", b"sec-fetch-site: NONE"])
async def test_programs_that_send_fetch_fields_are_welcome(running: Running, field: bytes) -> None:
    """Node's fetch sends Sec-Fetch-Mode; a typed-in address has Sec-Fetch-Site none."""
    answer = await running.ask(b"POST /issue HTTP/1.1\r\nHost: tailbone\r\n%b\r\n\r\n" % field)
    assert answer.status == 200


@pytest.mark.parametrize(
    "field",
    [
        b"Origin: http://tailbone",
        b"Origin: null",
        b"Origin:",
        b"Sec-Fetch-Site:",
        b"origin: x",
        b"Sec-Fetch-Site: same-origin",
        b"Sec-Fetch-Site: cross-site",
        b"Sec-Fetch-Site: same-site",
        b"Sec-Fetch-Site: none\r\nSec-Fetch-Site: none",
        b"Sec-Fetch-Site: new-value",
    ],
)
async def test_web_pages_get_nothing(running: Running, world: World, field: bytes) -> None:
    """A page's script may send the request; its visitor did not. Nobody is even looked up."""
    answer = await running.ask(b"POST /issue HTTP/1.1\r\nHost: tailbone\r\n%b\r\n\r\n" % field)
    assert (answer.status, answer.json["error"]) == (403, "browser_request")
    assert world.asked_for == []


@pytest.mark.parametrize(
    "host", [b"evil.example", b"", b"tailbone.evil.example", b"127.0.0.1", b"100.64.0.2"]
)
async def test_a_foreign_host_gets_nothing(running: Running, world: World, host: bytes) -> None:
    """DNS rebinding: the page's own name leads here, but it is not this server's."""
    answer = await running.ask(b"POST /issue HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
    assert (answer.status, answer.json["error"]) == (421, "wrong_host")
    assert world.asked_for == []


async def test_the_node_gets_another_name(running: Running, world: World) -> None:
    """From then on only that one means it, also on a connection that was open before."""
    client = await running.connect()
    renamed = ISSUE.replace(b"tailbone", b"other")
    assert [(await client.ask(request)).status for request in (ISSUE, renamed)] == [200, 421]
    world.endpoints.hosts = AllowedHosts(["other.dev.tailnet.test", "other"])
    assert [(await client.ask(request)).status for request in (ISSUE, renamed)] == [421, 200]


@pytest.mark.parametrize(
    "target",
    [b"http://tailbone/issue", b"http://TAILBONE./issue", b"http://100.64.0.1:80/issue"],
)
async def test_a_url_as_target_is_checked_like_host(running: Running, target: bytes) -> None:
    """A proxy sends the whole URL (RFC 9112 section 3.2.2)."""
    host = target.split(b"/")[2]
    answer = await running.ask(b"POST %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, host))
    assert answer.status == 200
    answer = await running.ask(b"POST http://evil/issue HTTP/1.1\r\nHost: evil\r\n\r\n")
    assert answer.status == 421


async def test_http_1_0_without_a_host_gets_nothing(running: Running) -> None:
    """No Host is no name of this server."""
    assert (await running.ask(b"POST /issue HTTP/1.0\r\n\r\n")).status == 421


@pytest.mark.parametrize("method", [b"POST", b"OPTIONS"])
@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"http://tailbone", b"tailbone", 404),
        (b"http://tailbone?a=b", b"tailbone", 404),
        (b"http://evil", b"evil", 404),
        (b"http://tailbone", b"evil", 400),
        (b"/%8d", b"tailbone", 404),
    ],
)
async def test_a_target_without_a_path_is_refused(
    running: Running, world: World, method: bytes, target: bytes, host: bytes, status: int
) -> None:
    """It is not a fault of the server."""
    answer = await running.ask(b"%b %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (method, target, host))
    assert answer.status == status
    assert [line.level for line in world.log.lines] == ["info"]


@pytest.mark.parametrize(
    ("change", "code"), [({"expired": True}, "expired_caller"), ({"shared": True}, "shared_caller")]
)
async def test_expired_and_shared_callers_get_nothing(
    running: Running, world: World, change: dict[str, bool], code: str
) -> None:
    """Before their query is looked at; the log knows who it was."""
    assert not isinstance(world.caller, Exception)
    world.caller = msgspec.structs.replace(world.caller, **change)
    answer = await running.ask(ISSUE.replace(b"/issue", b"/issue?x=y"))
    assert (answer.status, answer.json["error"]) == (403, code)
    (line,) = world.log.lines
    assert (line.level, line.event) == ("warn", "request refused")
    assert line.fields["sub"] == "user:123"
    assert line.fields["node"] == "laptop.dev.tailnet.test"
    assert line.fields["code"] == code


# --- the order


@pytest.mark.parametrize("faults", [*combinations(FAULTS, 1), *combinations(FAULTS, 2), FAULTS])
async def test_of_several_faults_the_first_is_named(
    running: Running, world: World, faults: tuple[str, ...]
) -> None:
    """The order is part of the interface, every error has one form, and nothing is issued."""
    answer = await running.ask(with_faults(faults, world))
    assert (answer.status, answer.json["error"]) == (STATUS[FAULTS.index(faults[0])], faults[0])
    assert answer.json.keys() == {"error", "message"}
    assert (answer.fields["Content-Type"], answer.fields["Cache-Control"]) == ("application/json", "no-store")
    assert world.audit.lines == []
    assert [line.fields["code"] for line in world.log.lines] == [faults[0]]


async def test_before_the_caller_is_due_nobody_is_looked_up(running: Running, world: World) -> None:
    """What is refused for its form costs no whois."""
    for fault in FAULTS[:6]:
        await running.ask(with_faults((fault,), world))
    assert world.asked_for == []


# --- methods and paths


@pytest.mark.parametrize(
    "method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"post", b"X"]
)
async def test_issue_takes_post_only(running: Running, method: bytes) -> None:
    """405 with Allow; methods are case-sensitive (RFC 9110 section 9.1)."""
    client = await running.connect()
    client.send(method + b" /issue HTTP/1.1\r\nHost: tailbone\r\n\r\n")
    answer = await client.response(head_only=method == b"HEAD")
    assert (answer.status, answer.fields["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "path", [b"/_healthz", b"/_readyz", b"/.well-known/jwks.json", b"/.well-known/openid-configuration"]
)
@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"get"])
async def test_the_others_take_get_and_head_only(running: Running, path: bytes, method: bytes) -> None:
    """405 with Allow, whoever asks."""
    answer = await running.ask(method + b" " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (answer.status, answer.fields["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path", [b"/_healthz", b"/_readyz", b"/.well-known/jwks.json", b"/.well-known/openid-configuration"]
)
async def test_head_is_get_without_its_body(running: Running, path: bytes) -> None:
    """The same fields, Content-Length too (RFC 9110 section 9.3.2), and the connection goes on."""
    client = await running.connect()
    client.send(b"HEAD " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await client.response(head_only=True)
    get = await client.ask(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (head.status, head.fields | {"Date": ""}) == (get.status, get.fields | {"Date": ""})
    assert int(head.fields["Content-Length"]) == len(get.body) > 0


@pytest.mark.parametrize(
    "target",
    [
        b"/issue/",
        b"//issue",
        b"/ISSUE",
        b"/%69ssue",
        b"/issue;x",
        b"/./issue",
        b"/a/../issue",
        b"/_healthz/",
    ],
)
@pytest.mark.parametrize("method", [b"POST", b"GET"])
async def test_other_paths_are_not_found(running: Running, method: bytes, target: bytes) -> None:
    """A path has one spelling; the message lists those there are."""
    answer = await running.ask(method + b" " + target + b" HTTP/1.1\r\nHost: tailbone\r\n\r\n")
    assert (answer.status, answer.json) == (
        404,
        {
            "error": "not_found",
            "message": "no such path; there are "
            "POST /issue, GET /whoami, GET /, GET /_healthz, GET /_readyz, GET /metrics, "
            "GET /.well-known/jwks.json, GET /.well-known/openid-configuration",
        },
    )


# --- health, readiness, JWKS


async def test_healthz(running: Running, world: World) -> None:
    """As reference.md gives it: alive says nothing about ready, and needs no Host of ours."""
    world.reasons, world.signing = [Problem("no_key", "no key")], None
    answer = await running.ask(b"GET /_healthz HTTP/1.1\r\nHost: anything\r\n\r\n")
    assert (answer.status, answer.body) == (200, b'{"ok":true,"version":"1.2.3","commit":"abc1234"}')


async def test_readyz_when_ready(running: Running, world: World) -> None:
    """Notes make it no less ready."""
    world.notes = [
        Problem("jwks_stale", "jwks: stale: last read 30 s ago"),
        Problem("outside_ok", "outside: ok", "outside: ok"),
    ]
    answer = await running.ask(b"GET /_readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    notes = ["jwks_stale", "outside: ok"]
    assert (answer.status, answer.json) == (200, {"ready": True, "reasons": [], "notes": notes})


async def test_readyz_when_not(running: Running, world: World) -> None:
    """503 with the codes of the reasons, in the form of every error; texts name keys, paths and hosts."""
    world.reasons = [
        Problem("node_not_running", "node: Stopped"),
        Problem("key_waiting", "keys: tb-1 signs in 5 s"),
        Problem("key_waiting", "keys: tb-2 signs in 9 s"),
    ]
    answer = await running.ask(b"GET /_readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (answer.status, answer.json) == (
        503,
        {
            "error": "not_ready",
            "message": "not ready: node_not_running, key_waiting; tailbone keys status says more",
            "reasons": ["node_not_running", "key_waiting"],
            "notes": [],
        },
    )


async def test_the_jwks_is_the_published_document(running: Running, world: World) -> None:
    """Byte for byte, as JSON that may be cached as long as the bucket's copy."""
    world.jwks = b'{"keys": [ {"kid": "x"} ]}\n'
    answer = await running.ask(b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (answer.status, answer.body) == (200, b'{"keys": [ {"kid": "x"} ]}\n')
    assert answer.fields["Content-Type"] == "application/json"
    assert answer.fields["Cache-Control"] == "public, max-age=300"


async def test_no_jwks_yet_is_no_empty_one(running: Running, world: World) -> None:
    """A verifier would keep that there are no keys for minutes."""
    world.jwks = None
    answer = await running.ask(b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (answer.status, answer.json["error"]) == (503, "not_ready")
    assert answer.json["reasons"] == ["no_jwks"]
    assert answer.fields["Cache-Control"] == "no-store"


async def test_a_known_jwks_is_not_sent_again(running: Running, world: World) -> None:
    """304 for its ETag, weak or among others or by a star; 200 as soon as it has changed."""
    client = await running.connect()
    get = b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\nIf-None-Match: %b\r\n\r\n"
    first = await client.ask(get % b'"other"')
    etag = first.fields["Etag"].encode()
    for known in (etag, b"W/" + etag, b'"a", ' + etag, b"*"):
        again = await client.ask(get % known)
        assert (again.status, again.body, again.fields["Etag"].encode()) == (304, b"", etag)
    world.jwks = b'{"keys":[{}]}'
    assert (await client.ask(get % etag)).status == 200


async def test_the_discovery_document_is_made_for_the_jwks(running: Running, world: World) -> None:
    """JSON that may be cached as long as the JWKS, and has its own ETag."""
    answer = await running.ask(b"GET /.well-known/openid-configuration HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (answer.status, answer.body) == (200, b'{"of":{"keys":[]}}')
    assert answer.fields["Content-Type"] == "application/json"
    assert answer.fields["Cache-Control"] == "public, max-age=300"
    get = b"GET /.well-known/openid-configuration HTTP/1.1\r\nHost: x\r\nIf-None-Match: %b\r\n\r\n"
    assert (await running.ask(get % answer.fields["Etag"].encode())).status == 304


async def test_before_the_first_key_there_is_no_discovery_document(running: Running, world: World) -> None:
    """It would name no algorithm."""
    world.jwks = None
    answer = await running.ask(b"GET /.well-known/openid-configuration HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (answer.status, answer.fields["Cache-Control"]) == (503, "no-store")


# --- failures that are ours


async def test_an_unexpected_error_is_told_to_nobody(running: Running, world: World) -> None:
    """500 without the inner text; the log has it all, and the connection goes on."""
    world.caller = ValueError("/secret/path")
    client = await running.connect()
    answer = await client.ask(ISSUE)
    assert (answer.status, answer.json) == (
        500,
        {"error": "internal", "message": "internal error; the server's log has the cause"},
    )
    (line,) = world.log.lines
    assert (line.level, line.fields["exc_info"]) == ("error", world.caller)
    assert (await client.ask(b"GET /_healthz HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200


@pytest.mark.parametrize(
    "error", [TailnetError("the node is not there"), NodeClosedError("the node is closed")]
)
async def test_a_node_that_cannot_answer_is_a_503(
    running: Running, world: World, error: TailnetError
) -> None:
    """Who is behind an address is not known now; it may be in a moment."""
    world.caller = error
    answer = await running.ask(ISSUE)
    assert (answer.status, answer.json) == (503, {"error": error.code, "message": error.message})


async def test_what_helps_the_operator_goes_to_the_log_only(running: Running, world: World) -> None:
    """An unknown caller hears that it is unknown; the log says from where."""
    world.caller = UnknownCallerError("no node of this tailnet has your address", detail="100.64.0.99:1")
    answer = await running.ask(ISSUE)
    assert answer.json == {"error": "unknown_caller", "message": "no node of this tailnet has your address"}
    (line,) = world.log.lines
    assert (line.level, line.fields["code"], line.fields["detail"]) == (
        "warn",
        "unknown_caller",
        "100.64.0.99:1",
    )
    # Not the whole name: who knows its random part could pass for a peer.
    assert line.fields["peer"] == "100.64.0.2:50123"


async def test_not_ready_while_no_line_can_be_written(running: Running, world: World) -> None:
    """No token leaves without its line: after a line that failed, readiness is whether one can be written."""
    ready = b"GET /_readyz HTTP/1.1\r\nHost: tailbone\r\n\r\n"
    world.audit.fails = OSError(28, "No space left on device")
    assert (await running.ask(ready)).status == 200
    assert (await running.ask(ISSUE)).status == 503
    answer = await running.ask(ready)
    assert (answer.status, answer.json["reasons"]) == (503, ["log_unavailable"])
    world.audit.fails = None
    assert [(await running.ask(ready)).status for _ in range(2)] == [200, 200]
    assert [line.event for line in world.audit.lines] == ["the lines of tokens can be written again"]


@pytest.mark.parametrize(
    ("request_", "level"),
    [(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", "info"), (b"x\r\n\r\n", "info")],
)
async def test_slips_are_logged_at_info(running: Running, world: World, request_: bytes, level: str) -> None:
    """A client's slip is no reason to wake anybody."""
    await running.ask(request_)
    assert [line.level for line in world.log.lines] == [level]
