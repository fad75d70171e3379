"""Public documents on a loopback port."""

from __future__ import annotations

import http.client
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from harness.waiting import until

from tailbone.jwks.serving import serve_documents

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENTS: dict[str, bytes | None] = {"/known": b'{"keys":[]}', "/later": None}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    readers = {path: (lambda path=path: DOCUMENTS[path]) for path in DOCUMENTS}
    with serve_documents(("127.0.0.1", 0), readers, max_age_s=300.0) as port:
        yield port


def handlers() -> int:
    """Return how many connections are being served."""
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def ask(port: int, method: str, path: str) -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers["Cache-Control"]
    finally:
        connection.close()


def test_a_document_is_served(port: int) -> None:
    """It may be cached; HEAD gets no body."""
    assert ask(port, "GET", "/known") == (200, b'{"keys":[]}', "public, max-age=300")
    assert ask(port, "HEAD", "/known") == (200, b"", "public, max-age=300")


def test_a_document_that_does_not_exist_yet_is_unavailable(port: int) -> None:
    """An empty document would be cached by verifiers."""
    assert ask(port, "GET", "/later") == (503, b"", "no-store")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/issue", 404), ("POST", "/issue", 501), ("POST", "/known", 501), ("GET", "/../known", 404)],
)
def test_other_requests_are_refused(port: int, method: str, path: str, status: int) -> None:
    """Only GET and HEAD of known paths are answered."""
    assert ask(port, method, path)[0] == status


def test_a_disconnected_client_is_ignored(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    """It is not reported, and others are answered."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sendall(b"GET /known HT")
        until(lambda: handlers() == 1, "a thread for the client")
    until(lambda: handlers() == 0, "its end")
    assert ask(port, "GET", "/known")[0] == 200
    assert capfd.readouterr().err == ""


def test_the_port_may_be_on_ipv6() -> None:
    """Both loopback addresses can be used."""
    with serve_documents(("::1", 0), {}, max_age_s=1) as port:
        socket.create_connection(("::1", port), 5).close()
