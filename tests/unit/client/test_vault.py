"""Vault: its login."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from harness.web import Page, WebServer

from tailbone.client.vault import log_in
from tailbone.errors import ConfigError, ExchangeError

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = "/v1/auth/jwt/login"


@pytest.fixture
def vault() -> Iterator[WebServer]:
    with WebServer() as web:
        yield web


def test_a_login(vault: WebServer) -> None:
    """Role and token are in the body; Vault's token is not shown."""
    answer = {"auth": {"client_token": "hvs.x", "lease_duration": 600, "renewable": True}}
    vault.pages[PATH] = Page(json.dumps(answer).encode())
    login = log_in(vault.url, "ci", "eyJ.a.b")
    assert login == ("hvs.x", 600, True)
    assert "hvs" not in repr(login)
    assert json.loads(vault.requests[0]["body"]) == {"role": "ci", "jwt": "eyJ.a.b"}


def test_a_refusal_is_the_text_of_vault(vault: WebServer) -> None:
    """In one line."""
    vault.pages[PATH] = Page(b'{"errors": ["error validating token:\\n invalid audience"]}', status=400)
    with pytest.raises(
        ExchangeError, match=r"^Vault refused the token: error validating token: invalid audience$"
    ):
        log_in(vault.url, "ci", "eyJ.a.b")


def test_other_failures(vault: WebServer) -> None:
    """An answer without a token, and a URL that cannot be requested."""
    vault.pages["/v1/auth/other/login"] = Page(b"{}")
    with pytest.raises(ExchangeError, match="did not answer with a token"):
        log_in(vault.url, "ci", "eyJ.a.b", mount="other")
    with pytest.raises(ExchangeError, match="cannot be reached"):
        log_in(f"{vault.url}/\u00fc", "ci", "eyJ.a.b")


@pytest.mark.parametrize("errors", [b"5", b'"text"', b"[]"])
def test_a_refusal_in_an_unknown_form(vault: WebServer, errors: bytes) -> None:
    """It has at least the status."""
    vault.pages[PATH] = Page(b'{"errors": ' + errors + b"}", status=403)
    with pytest.raises(ExchangeError, match=r"^Vault refused the token: status 403$"):
        log_in(vault.url, "ci", "eyJ.a.b")


def test_a_life_in_an_unknown_form(vault: WebServer) -> None:
    """The token counts as one whose life is not known."""
    vault.pages[PATH] = Page(b'{"auth": {"client_token": "hvs.x", "lease_duration": "ten minutes"}}')
    assert log_in(vault.url, "ci", "eyJ.a.b") == ("hvs.x", 0, False)


@pytest.mark.parametrize("address", ["vault:8200", "http://vault:x", "http://[vault", "https://me:pw@vault"])
def test_an_address_must_be_a_url(address: str) -> None:
    """A password is not shown."""
    with pytest.raises(ConfigError, match="Vault's address") as failure:
        log_in(address, "ci", "eyJ.a.b")
    assert "pw" not in failure.value.message
