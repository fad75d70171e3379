"""The page for people: GET /."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from html import unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from harness.grants import as_json

from tailbone.errors import Problem, UnknownCallerError
from tailbone.keys.listing import KeyInfo
from tailbone.server.rate_limit import RateLimit
from tailbone.token.grants import TOKEN_CAPABILITY
from tailbone.token.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from conftest import Response, Running, World

MARKUP = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"
PERSON = Identity(
    node_id="nStable",
    node="laptop.dev.tailnet.test",
    user_id=123,
    login="dev@example.com",
    display_name="Dev",
)
VOID = {"meta"}


class Reader(HTMLParser):
    """Reads the page as text, and checks that its tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.parts.append(data)


def read(answer: Response) -> Reader:
    reader = Reader()
    reader.feed(answer.body.decode())
    reader.close()
    assert reader.open == []
    return reader


def text_of(answer: Response) -> str:
    return " ".join(" ".join(read(answer).parts).split())


def commands(answer: Response) -> list[list[str]]:
    """Return the commands that get a token, as a shell splits them."""
    shown = re.findall(r"<h3>.*?</h3>\n<pre><code>(.*?)</code>", answer.body.decode(), re.DOTALL)
    return [shlex.split(unescape(re.sub("<.*?>", "", command))) for command in shown]


def get(*fields: str, method: str = "GET", host: str = "tailbone") -> bytes:
    return "\r\n".join([f"{method} / HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode()


def granting(*values: Any) -> Identity:
    return msgspec.structs.replace(PERSON, capabilities={TOKEN_CAPABILITY: as_json(*values)})


KEYS = [
    KeyInfo(
        key_id="tb-1795518000",
        algorithm="RS256",
        created_at=1795518000,
        state="active",
        next_change=("retires", 1795604630.0),
    ),
    KeyInfo(
        key_id="tb-1795518100",
        algorithm="ES256",
        created_at=1795518100,
        state="published",
        next_change=("signs", 1795518410.0),
    ),
    KeyInfo(key_id="old", algorithm="RS256", created_at=0, state="published", foreign=True),
    KeyInfo(
        key_id="tb-9",
        algorithm="",
        created_at=9,
        state="faulty",
        fault="/var/keys/tb-9.pem: everybody can read",
    ),
]


async def test_a_person_sees_who_it_is_and_what_it_may_request(running: Running, world: World) -> None:
    """Names, addresses, audiences with their longest lifetimes, and the claims that grants add."""
    world.caller = msgspec.structs.replace(
        granting({"audiences": ["vault"], "ttl": "5m", "groups": ["ops"]}),
        addresses=("100.64.0.2",),
        key_expiry=1795604630,
    )
    answer = await running.ask(get())
    assert (answer.status, answer.fields["Content-Type"]) == (200, "text/html; charset=utf-8")
    text = text_of(answer)
    for shown in (
        "You are dev@example.com",
        "Name Dev",
        "Subject user:123",
        "Node laptop.dev.tailnet.test",
        "Addresses 100.64.0.2",
        "Node key 2026-11-25 11:03:50Z (in 1d)",
        "Admin roles viewer",
        "a token without an audience for up to 20m",
        "sts.example for up to 20m",
        "vault for up to 5m",
        '"groups": [ "ops" ]',
    ):
        assert shown in text
    assert "Tags" not in text


async def test_the_commands_have_this_servers_name(running: Running, world: World) -> None:
    """They can be pasted as they are: the name by which the caller reached the page, and its audience."""
    world.settings = msgspec.structs.replace(world.settings, audiences=())
    world.caller = granting({"audiences": ["a b'c&d"]})
    running.world.endpoints.issuer.settings = world.settings
    audience, url = "a b'c&d", "http://127.0.0.1:8080"
    assert commands(await running.ask(get(host="127.0.0.1:8080"))) == [
        ["curl", "-X", "POST", f"{url}/issue?audience=a%20b%27c%26d"],
        ["tailbone", "token", "--issuer-url", url, "--audience", audience],
        ["tailbone", "exec", "--issuer-url", url, "--env", f"{audience}=TOKEN", "--", "COMMAND"],
    ]
    world.caller = PERSON
    assert commands(await running.ask(get(host="TAILBONE"))) == [
        ["curl", "-X", "POST", "http://tailbone/issue"],
        ["tailbone", "token", "--issuer-url", "http://tailbone"],
    ]


async def test_a_tagged_node_sees_its_tags(running: Running, world: World) -> None:
    """And no user."""
    world.caller = Identity(node_id="nCi", node="ci.dev.tailnet.test", tags=("tag:ci", "tag:eu"))
    text = text_of(await running.ask(get()))
    for shown in (
        "You are tag:ci, tag:eu",
        "Subject node:nCi",
        "Tags tag:ci tag:eu",
        "Node key never expires",
    ):
        assert shown in text
    assert "Name" not in text


@pytest.mark.parametrize(
    ("change", "message", "code"),
    [
        ({"shared": True}, "your node is shared in from another tailnet", "shared_caller"),
        ({"expired": True}, "the key of your node has expired", "expired_caller"),
    ],
)
async def test_a_caller_that_gets_no_token_sees_why(
    running: Running, world: World, change: dict[str, bool], message: str, code: str
) -> None:
    """Instead of audiences and commands."""
    world.caller = msgspec.structs.replace(PERSON, **change)
    answer = await running.ask(get())
    text = text_of(answer)
    assert answer.status == 200
    assert f"No token: {message}" in text
    assert f"({code} )" in text or f"( {code} )" in text
    assert "Get a token" not in text
    assert ("Shared shared in from another tailnet" in text) == ("shared" in change)


async def test_an_audience_whose_rules_contradict_each_other(running: Running, world: World) -> None:
    """The refusal that there would be is beside it, and the others are offered."""
    world.caller = granting(
        {"audiences": ["vault"], "claims": {"team": "secret-a"}},
        {"audiences": ["vault"], "claims": {"team": "secret-b"}},
    )
    text = text_of(await running.ask(get()))
    assert "vault Refused: the tailnet's grants for this audience contradict each other" in text
    assert "sts.example for up to 20m" in text
    assert "secret" not in text


async def test_many_audiences(running: Running, world: World) -> None:
    """Twenty are explained, and the rest counted."""
    world.caller = granting({"audiences": [f"a{number}" for number in range(100)]})
    text = text_of(await running.ask(get()))
    assert text.count("for up to") == 20
    assert "and 82 more: curl http://tailbone/whoami" in text


async def test_any_audience(running: Running, world: World) -> None:
    """A rule for all audiences is named as such."""
    world.caller = granting({"audiences": ["*"], "ttl": "90s"})
    assert "any other audience for up to 1m30s" in text_of(await running.ask(get()))


async def test_the_keys_with_states_and_times(running: Running, world: World) -> None:
    """Without what is wrong with a key's files, which names paths."""
    world.keys = KEYS
    text = text_of(await running.ask(get()))
    for shown in (
        "tb-1795518000 signs RS256 since 2026-11-24 11:00:00Z retires in 1d",
        "tb-1795518100 published ES256 since 2026-11-24 11:01:40Z signs in 3m",
        "old foreign RS256",
        "tb-9 faulty",
    ):
        assert shown in text
    assert "/var/keys" not in text


async def test_readiness_shows_codes_and_public_texts(running: Running, world: World) -> None:
    """As /_readyz does: texts of reasons name keys, paths and hosts."""
    world.notes = [
        Problem("jwks_stale", "jwks: stale: secret"),
        Problem("outside_ok", "outside: ok", "outside: ok"),
    ]
    text = text_of(await running.ask(get()))
    assert "Tokens can be issued" in text
    assert "Notes jwks_stale outside: ok" in text
    world.reasons = [Problem("key_waiting", "keys: tb-1 signs in 5 s, secret")]
    answer = await running.ask(get())
    text = text_of(answer)
    assert (answer.status, "secret" in text) == (200, False)
    assert "Tokens cannot be issued now key_waiting" in text
    assert "not ready" in text


async def test_the_links(
    start: Callable[[World], AbstractAsyncContextManager[Running]], world: World
) -> None:
    """JWKS and discovery document; without an issuer's URL there is no discovery document."""
    jwks, discovery = "/.well-known/jwks.json", "/.well-known/openid-configuration"
    for is_url, links in ((True, [jwks, discovery]), (False, [jwks])):
        world.is_url = is_url
        async with start(world) as running:
            tags = read(await running.ask(get())).tags
            assert [attributes["href"] for tag, attributes in tags if tag == "a"] == links


async def test_markup_in_names_is_text(running: Running, world: World) -> None:
    """No name, address, audience, claim, role or key id adds a tag to the page, and each is shown."""
    plain = [tag for tag, _ in read(await running.ask(get())).tags]
    world.endpoints.roles = lambda _: [MARKUP]
    world.caller = msgspec.structs.replace(
        granting({"audiences": [MARKUP], "claims": {"team": MARKUP}}),
        login=MARKUP,
        display_name=MARKUP,
        node=MARKUP,
        addresses=(MARKUP,),
    )
    world.keys = [KeyInfo(key_id=MARKUP, algorithm=MARKUP, created_at=1, state="published", foreign=True)]
    world.notes = [Problem("note", MARKUP, MARKUP)]
    answer = await running.ask(get())
    reader = read(answer)
    assert {tag for tag, _ in reader.tags} - set(plain) <= {"dd", "dt", "h3", "li", "ul", "div"}
    assert " ".join(reader.parts).count("<script>alert(1)</script>") >= 10
    assert b"<script" not in answer.body
    assert b"<img" not in answer.body


async def test_invisible_characters_are_shown(running: Running, world: World) -> None:
    """An audience or key id cannot look like another one; one that is not valid Unicode is no failure."""
    world.caller = granting({"audiences": ["va\u202eult"]})
    world.keys = [KeyInfo(key_id="a\udc80\u200bb", algorithm="", created_at=10**18, state="published")]
    text = text_of(await running.ask(get()))
    assert "va\\u202eult" in text
    assert "a\\udc80\\u200bb" in text
    answer = await running.ask(get("Accept: application/json"))
    assert answer.json["keys"][0]["key_id"] == "a\\udc80\\u200bb"


async def test_the_fields_of_the_answer(running: Running) -> None:
    """No script, no other source, no frame; the style's hash is that of the style in the page."""
    answer = await running.ask(get())
    [style] = re.findall(rb"<style>(.*?)</style>", answer.body, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert answer.fields["Content-Security-Policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    )
    assert answer.fields["X-Content-Type-Options"] == "nosniff"
    assert answer.fields["Referrer-Policy"] == "no-referrer"
    assert answer.fields["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.fields["Cache-Control"] == "no-store"
    assert not [name for name in answer.fields if name.startswith("Access-Control")]
    tags = read(answer).tags
    assert not {tag for tag, _ in tags} & {"script", "img", "form", "iframe", "link", "base"}
    assert not [name for _, attributes in tags for name in attributes if name == "style" or name[:2] == "on"]


async def test_the_page_has_landmarks_and_headings(running: Running) -> None:
    """Language, one h1, and a heading for each section."""
    tags = read(await running.ask(get())).tags
    names = [tag for tag, _ in tags]
    assert dict(tags)["html"] == {"lang": "en"}
    assert [names.count(tag) for tag in ("header", "main", "footer", "h1", "title")] == [1, 1, 1, 1, 1]
    labels = [attributes["aria-labelledby"] for tag, attributes in tags if tag == "section"]
    assert labels == [attributes["id"] for tag, attributes in tags if tag == "h2"]


async def test_admins_see_the_last_lines_of_the_audit_file(running: Running, world: World) -> None:
    """Escaped, and nobody else sees them."""
    asked: list[int] = []

    def last(most: int) -> list[str]:
        asked.append(most)
        return ['{"event":"token issued"}', f'{{"aud":"{MARKUP}"}}']

    world.endpoints.audit_last = last
    assert "token issued" not in text_of(await running.ask(get()))
    assert (await running.ask(get("Accept: application/json"))).json["audit"] is None
    assert asked == []
    world.endpoints.roles = lambda _: ["viewer", "operator", "admin"]
    answer = await running.ask(get())
    assert 'Last lines of the audit file {"event":"token issued"}' in text_of(answer)
    assert b"<script" not in answer.body
    assert asked == [20]
    world.endpoints.audit_last = None
    assert "audit" not in text_of(await running.ask(get()))


async def test_head_is_get_without_its_body(running: Running) -> None:
    """The same fields."""
    client = await running.connect()
    client.send(get(method="HEAD"))
    head = await client.response(head_only=True)
    page = await client.ask(get())
    assert (head.status, head.fields | {"Date": ""}) == (page.status, page.fields | {"Date": ""})


@pytest.mark.parametrize("accept", ["text/html,application/xhtml+xml,*/*;q=0.8", "*/*", ""])
async def test_html_for_everything_else(running: Running, accept: str) -> None:
    """Browsers, and curl."""
    assert (await running.ask(get(f"Accept: {accept}"))).fields["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"], 200),
        (["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"], 200),
        (["Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"], 200),
        (["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"], 403),
        (["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"], 403),
        (["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"], 403),
        (["Sec-Fetch-Site: same-origin", "Sec-Fetch-Dest: empty"], 403),
        (["Origin: http://evil.example"], 403),
        (["Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document"], 403),
    ],
)
async def test_which_requests_of_browsers_are_answered(
    running: Running, fields: list[str], status: int
) -> None:
    """A typed name and a link; neither a frame nor a script, nor an image of another site."""
    assert (await running.ask(get(*fields))).status == status


async def test_the_page_does_not_open_the_token_path(running: Running) -> None:
    """A navigation is still refused there."""
    fields = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: document"
    for line in ("POST /issue", "GET /whoami"):
        answer = await running.ask(f"{line} HTTP/1.1\r\nHost: tailbone\r\n{fields}\r\n\r\n".encode())
        assert (answer.status, answer.json["error"]) == (403, "browser_request")


async def test_the_host_is_checked(running: Running, world: World) -> None:
    """This stops DNS rebinding; nobody is looked up."""
    fields = ["Sec-Fetch-Site: none", "Sec-Fetch-Dest: document"]
    answer = await running.ask(get(*fields, host="evil.example"))
    assert (answer.status, answer.json["error"]) == (421, "wrong_host")
    assert world.asked_for == []


async def test_a_url_without_a_path_is_the_page(running: Running) -> None:
    """As RFC 9112 section 3.2.1 has it; its host is checked."""
    for host, status in (("tailbone", 200), ("evil", 421)):
        answer = await running.ask(f"GET http://{host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert answer.status == status


async def test_an_unknown_caller_gets_no_page(running: Running, world: World) -> None:
    """An address without a node is refused as everywhere."""
    world.caller = UnknownCallerError("no node of this tailnet has your address")
    answer = await running.ask(get())
    assert (answer.status, answer.json["error"]) == (403, "unknown_caller")


async def test_the_page_counts_for_the_rate_limit(
    start: Callable[[World], AbstractAsyncContextManager[Running]], world: World
) -> None:
    """It costs more than a token."""
    world.rate_limit = RateLimit(1)
    async with start(world) as running:
        client = await running.connect()
        statuses = [(await client.ask(get())).status for _ in range(10)]
    assert statuses[0] == 200
    assert 429 in statuses


async def test_the_page_changes_nothing(running: Running, world: World) -> None:
    """Nothing is signed, and nothing is written to the log or the audit log; there is no token in it."""
    world.gate()
    answer = await running.ask(get())
    assert (answer.status, world.log.lines, world.audit.lines) == (200, [], [])
    assert b"eyJ" not in answer.body
    assert sum(world.counts.requests.values()) == 0
