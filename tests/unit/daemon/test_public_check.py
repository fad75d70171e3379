"""PublicCheck: when it runs, what it notes, what it logs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from harness.log import Lines
from harness.web import Page, WebServer

from tailbone.config.load import load
from tailbone.daemon.public_check import PublicCheck, public_check
from tailbone.jwks.discovery import Discovery
from tailbone.jwks.document import Document
from tailbone.keys.signing_key import SigningKey
from tailbone.keys.view import KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterator

DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/.well-known/jwks.json"


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


class EnoughError(Exception):
    """Ends the test."""


class Clock:
    """A sleep that calls the next of some steps; after the last one it ends the run."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if not self.steps:
            raise EnoughError
        self.steps.pop(0)()


async def test_the_outcome_is_a_note_and_a_line_when_it_changes(web: WebServer) -> None:
    """It waits for the first key, then checks every maxAge."""
    key = SigningKey.generate("tb-1", algorithm="ES256", size=0, created_at=1)
    jwks = Document.empty().with_key(key.public_jwk(), key.thumbprint)
    discovery = Discovery(web.url)
    log, rings, notes = Lines(), [KeyRing(), KeyRing(signing=key)], []

    def publish() -> None:
        notes.append(check.note)
        web.pages[DISCOVERY] = Page(json.dumps(discovery.members(jwks)).encode())
        web.pages[JWKS] = Page(jwks.render())

    def note() -> None:
        notes.append(check.note)

    clock = Clock(lambda: rings.pop(0), note, publish, note)
    check = PublicCheck(discovery, lambda: rings[0], max_age_s=300.0, log=log, sleep=clock.sleep)
    with pytest.raises(EnoughError):
        await check.run()
    assert clock.slept == [1.0, 300.0, 300.0, 300.0, 300.0]
    missing = (
        f"{web.url}{DISCOVERY} answers 404: publish it there: see keys.bucket, keys.keyPath and "
        "keys.discoveryPath"
    )
    assert notes == [
        ("outside_failed", f"outside: {missing}", f"outside: {missing}"),
        ("outside_failed", f"outside: {missing}", f"outside: {missing}"),
        ("outside_ok", "outside: ok", "outside: ok"),
    ]
    assert [(level, event) for level, event, _ in log.lines] == [
        ("warning", f"the issuer seen from outside: {missing}"),
        ("info", "the issuer seen from outside: ok"),
    ]


async def test_an_unexpected_failure_is_a_note(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its traceback in the log, and the server goes on."""

    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tailbone.daemon.public_check.check_public_documents", fail)
    log = Lines()
    check = PublicCheck(Discovery(web.url), KeyRing, max_age_s=300.0, log=log)
    await check.check()
    text = "outside: unexpected failure (ZeroDivisionError); the log has more"
    assert check.note == ("outside_failed", text, text)
    assert isinstance(log.lines[0][2]["exc_info"], ZeroDivisionError)


@pytest.mark.parametrize(
    ("setting", "issuer", "runs"),
    [
        ("auto", "https://issuer.example", True),
        ("auto", "http://127.0.0.1:8090", False),
        ("auto", "tailbone", False),
        ("on", "https://issuer.example", True),
        ("on", "http://127.0.0.1:8090", True),
        ("on", "tailbone", False),
        ("off", "https://issuer.example", False),
    ],
)
def test_the_setting_decides(setting: str, issuer: str, runs: bool) -> None:
    """An issuer on loopback is checked only if asked for; one that is not a URL never."""
    config = load({"keys.outsideCheck": setting, "keys.issuer": issuer}, environ={})
    assert (public_check(config, KeyRing, Lines()) is not None) is runs
