"""An issuer's URL and answers."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tailbone.client.issuer import Issuer, Response, decode_answer, request
from tailbone.errors import ConfigError, IssuerAnswerError, IssuerRefusedError, IssuerUnavailableError


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://tailbone", "tailbone", 80),
        ("http://tailbone/", "tailbone", 80),
        ("http://127.0.0.1:8080/issue", "127.0.0.1", 8080),
        ("http://[fd7a:115c:a1e0::1]:81/issue", "fd7a:115c:a1e0::1", 81),
    ],
)
def test_a_url_may_have_the_path_of_the_endpoint(url: str, host: str, port: int) -> None:
    """TAILBONE_ISSUE_URL has it."""
    issuer = Issuer(url)
    assert (issuer.host, issuer.port) == (host, port)


def test_the_variable_names_the_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument wins over it."""
    monkeypatch.setenv("TAILBONE_ISSUE_URL", "http://127.0.0.1:8080/issue")
    assert Issuer().port == 8080
    assert Issuer("http://tailbone").host == "tailbone"
    monkeypatch.delenv("TAILBONE_ISSUE_URL")
    assert Issuer().host == "tailbone"


@pytest.mark.parametrize(
    "url",
    ["tailbone", "https://tailbone", "http://", "http://a/b", "http://u@a", "http://a:x", "http://a\r\n"],
)
def test_another_url_is_wrong_usage(url: str) -> None:
    """The message says what is allowed."""
    with pytest.raises(ConfigError, match="the issuer's URL must be a URL such as http://tailbone"):
        Issuer(url)


def test_a_refusal_has_the_issuers_text() -> None:
    """Text and code are on one line."""
    body = b'{"error": "no_grant", "message": "no rule\\n is for you"}'
    with pytest.raises(IssuerRefusedError, match=r"^no rule is for you \(no_grant\)$"):
        decode_answer(Response(403, body, 0.0), "http://tailbone")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refusal_for_now(status: int) -> None:
    """A later request may succeed, so the client keeps its token and tries again."""
    body = b'{"error": "rate_limited", "message": "try again in a second"}'
    with pytest.raises(IssuerUnavailableError, match=r"^try again in a second \(rate_limited\)$"):
        decode_answer(Response(status, body, 0.0), "http://tailbone")


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (200, b"[]"), (302, b""), (404, b"{}")])
def test_another_programs_answer_is_an_error(status: int, body: bytes) -> None:
    """Such as that of a web server."""
    with pytest.raises(IssuerAnswerError, match="did not answer as a tailbone issuer does"):
        decode_answer(Response(status, body, 0.0), "http://tailbone")


def test_an_answer_says_when_it_was_sent() -> None:
    """A token's life is counted by the issuer's own clock, however far back the token is dated."""
    near, far = socket.socketpair()
    with far:
        far.sendall(b"HTTP/1.1 200 OK\r\nDate: Sun, 29 Nov 2026 12:00:00 GMT\r\nContent-Length: 2\r\n\r\n{}")
        response = request(near, "POST", "/issue", host="tailbone")
    assert response == Response(200, b"{}", 1795953600.0)


def test_the_client_imports_no_framework() -> None:
    """It runs where the native library is not."""
    code = (
        "import sys; from tailbone.client import *; from tailbone.client.issuer import *\n"
        "others = ('sanic', 'grpc', 'aiobotocore', 'cffi', 'rich', 'msgspec', 'click', 'tailbone.files')\n"
        "print([name for name in others if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
