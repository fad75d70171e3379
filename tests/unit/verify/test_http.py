"""Fetching the issuer's documents."""

from __future__ import annotations

import json
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from harness.forging import JWKS
from harness.web import JSON, Certificate, Page, WebServer

from tailbone.verify import http
from tailbone.verify.errors import KeysUnavailableError
from tailbone.verify.http import LARGEST_DOCUMENT, check_url, fetch_keys, get

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DISCOVERY_PATH = "/.well-known/openid-configuration"


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as running:
        yield running


@pytest.mark.parametrize(
    "url", ["https://a.example/x", "http://127.0.0.1:8090/x", "http://[::1]/x", "http://localhost"]
)
def test_https_and_loopback_are_allowed(url: str) -> None:
    """Plain HTTP stays on this machine."""
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "tailbone",
        "http://a.example/x",
        "http://127.0.0.1.example/",
        "http://127.0.0.1@a.example/",
        "https://user@a.example/",
        "https://a.example/#x",
        "https://a.example:x/",
        "https://a.example/\n",
        "https://é.example/",
        "ftp://a.example/",
        "file:///etc/passwd",
        "https:///x",
        "https://[::1/",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    """Also those that only look like loopback."""
    with pytest.raises(ValueError):
        check_url(url)


@pytest.mark.parametrize(
    ("fields", "max_age_s"),
    [
        ({}, 300),
        ({"Cache-Control": "public, max-age=120"}, 120),
        ({"Cache-Control": "MAX-AGE=7,public"}, 7),
        ({"Cache-Control": "s-maxage=9"}, 300),
        ({"Cache-Control": "no-store, max-age=60"}, 0),
        ({"Cache-Control": "max-age=x"}, 300),
    ],
)
def test_cache_control_is_read(web: WebServer, fields: dict[str, str], max_age_s: float) -> None:
    """max-age, unless the answer may not be cached; five minutes without it."""
    web.pages["/jwks"] = Page(JWKS, fields)
    assert get(f"{web.url}/jwks") == (JWKS, max_age_s)


def test_redirects_are_not_followed(web: WebServer) -> None:
    """An open redirect of the issuer's host must not choose the keys."""
    web.pages["/jwks"] = Page(b"", {"Location": f"{web.url}/other"}, 302)
    web.pages["/other"] = Page(JWKS)
    with pytest.raises(KeysUnavailableError, match="status 302"):
        get(f"{web.url}/jwks")
    assert len(web.requests) == 1


def test_a_large_document_is_refused(web: WebServer) -> None:
    """At most 64 KiB are read."""
    web.pages["/jwks"] = Page(b" " * (LARGEST_DOCUMENT + 1))
    with pytest.raises(KeysUnavailableError, match="larger"):
        get(f"{web.url}/jwks")


def test_proxies_are_ignored(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable must not choose who answers."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    web.pages["/jwks?a=b"] = Page(JWKS)
    assert get(f"{web.url}/jwks?a=b").body == JWKS


def test_tls_is_verified(tmp_path: Path) -> None:
    """The certificate must be of a trusted CA; another context may trust others."""
    certificate = Certificate(tmp_path)
    with WebServer(certificate) as web:
        web.pages["/jwks"] = Page(JWKS)
        with pytest.raises(KeysUnavailableError):
            get(f"{web.url}/jwks")
        assert partial(get, context=certificate.client())(f"{web.url}/jwks").body == JWKS


def test_nobody_listens(web: WebServer) -> None:
    """A refused connection is an expected failure."""
    with socket.socket() as bound, pytest.raises(KeysUnavailableError):
        bound.bind(("127.0.0.1", 0))
        get(f"http://127.0.0.1:{bound.getsockname()[1]}/jwks")


def test_a_slow_answer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit is for the whole answer, however its bytes trickle in."""
    monkeypatch.setattr(http, "FETCH_S", 0.3)
    ended = threading.Event()

    def trickle(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not ended.wait(0.05):
                    connection.sendall(b" ")
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle, args=(listener,))
        thread.start()
        answer = b""
        try:
            answer = get(f"http://127.0.0.1:{listener.getsockname()[1]}/").body
        except KeysUnavailableError:
            pass
        finally:
            ended.set()
            thread.join()
        assert len(answer) < 100


def discovery(web: WebServer, **changes: Any) -> None:
    members = {"issuer": web.url, "jwks_uri": f"{web.url}/jwks", **changes}
    web.pages[DISCOVERY_PATH] = Page(json.dumps(members).encode())
    web.pages["/jwks"] = Page(JWKS, {**JSON, "Cache-Control": "max-age=77"})


def test_keys_are_discovered(web: WebServer) -> None:
    """The discovery document names the JWKS, whose max-age counts."""
    discovery(web)
    published = fetch_keys(web.url, None, get)
    assert (set(published.keys), published.max_age_s) == ({"rsa"}, 77)


def test_a_given_jwks_url_needs_no_discovery(web: WebServer) -> None:
    """The issuer is then any text."""
    discovery(web)
    assert set(fetch_keys("tailbone", f"{web.url}/jwks", get).keys) == {"rsa"}
    assert [request["path"] for request in web.requests] == ["/jwks"]


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"jwks_uri": "http://other.example/jwks"},
        {"jwks_uri": 7},
        {"jwks_uri": "jwks"},
    ],
)
def test_a_wrong_discovery_document_is_refused(web: WebServer, changes: dict[str, Any]) -> None:
    """It must be this issuer's, byte for byte, and name a safe URL."""
    discovery(web, **changes)
    with pytest.raises(KeysUnavailableError):
        fetch_keys(web.url, None, get)


def test_https_does_not_lead_to_http() -> None:
    """A discovery document from the network names no port of this machine."""
    document = {"issuer": "https://a.example", "jwks_uri": "http://127.0.0.1:1/jwks"}
    with pytest.raises(KeysUnavailableError, match="https"):
        fetch_keys("https://a.example", None, lambda _: http.Response(json.dumps(document).encode(), 0))
