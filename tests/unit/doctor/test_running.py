"""What doctor learns from the running server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from harness.web import Page, WebServer

from tailbone.client.issuer import Issuer
from tailbone.doctor.running import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

CLAIMS = {"iss": "https://issuer.example", "sub": "node:nCi", "exp": 1.0, "tags": ["tag:ci"]}
REFUSED = {"error": "no_grant", "message": "no grant"}


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


def test_a_server_that_cannot_be_reached() -> None:
    """Nothing is known, and nothing is guessed."""
    running = ask(Issuer("http://127.0.0.1:1"), "vault")
    assert (running.finding.level, running.issuer, running.subject) == ("warning", "", "")
    assert running.claims is running.jwks is None


@pytest.mark.parametrize("document", [b'{"issuer":"https://issuer.example"}', b"[]"])
def test_a_refusal_leaves_who_calls_and_who_the_issuer_is(web: WebServer, document: bytes) -> None:
    """Other answers of the server say it; nonsense in one of them leaves the others."""
    web.pages["/issue?audience=vault&dry_run=true"] = Page(json.dumps(REFUSED).encode(), {}, 403)
    web.pages["/whoami"] = Page(b'{"sub":"node:nCi","tags":["tag:ci"],"node":"x"}')
    web.pages["/.well-known/openid-configuration"] = Page(document)
    running = ask(Issuer(web.url), "vault")
    assert (running.finding.level, running.claims) == ("error", None)
    assert (running.subject, running.tags) == ("node:nCi", ("tag:ci",))
    assert running.issuer == ("https://issuer.example" if b"issuer" in document else "")


def test_what_a_token_would_contain(web: WebServer) -> None:
    """The dry run says everything; the JWKS is that of the server."""
    answer: dict[str, Any] = {"claims": CLAIMS, "rules": [], "notes": []}
    web.pages["/issue?audience=vault&dry_run=true"] = Page(json.dumps(answer).encode())
    web.pages["/.well-known/jwks.json"] = Page(b'{"keys":[]}')
    running = ask(Issuer(web.url), "vault")
    assert (running.finding.level, running.claims, running.issuer) == ("ok", CLAIMS, CLAIMS["iss"])
    assert running.jwks is not None
    assert running.jwks.keys == ()
