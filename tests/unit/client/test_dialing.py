"""The ways to a host of the tailnet."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tailbone.client.dialing import dial_directly, dial_through_tailscaled, tailscaled_socket
from tailbone.errors import IssuerUnreachableError, NotTailnetError

if TYPE_CHECKING:
    from pathlib import Path


def test_an_address_outside_the_tailnet_is_refused() -> None:
    """The name may be somebody else's machine on another network."""
    with pytest.raises(NotTailnetError, match=r'"192\.0\.2\.1" has the address 192\.0\.2\.1 here'):
        dial_directly("192.0.2.1", 80, any_address=False, timeout_s=1)


def test_loopback_is_allowed() -> None:
    """That is where `tailbone dev` is."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        dial_directly("127.0.0.1", server.getsockname()[1], any_address=False, timeout_s=1).close()


def test_a_closed_port_is_an_error_with_its_reason() -> None:
    """The message has one line."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(
        IssuerUnreachableError, match=f'"127.0.0.1" port {port} cannot be reached: Connection'
    ):
        dial_directly("127.0.0.1", port, any_address=False, timeout_s=1)


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_what_cannot_be_a_name_is_unknown(host: str) -> None:
    """A label of a name has 1 to 63 characters."""
    with pytest.raises(IssuerUnreachableError, match="is unknown here"):
        dial_directly(host, 80, any_address=False, timeout_s=1)


def test_the_socket_of_tailscaled_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As containers do; a path without a socket does not count."""
    path = tmp_path / "s"
    monkeypatch.setenv("TS_SOCKET", str(path))
    assert tailscaled_socket() is None
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert tailscaled_socket() == path


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nDial-Self: true\r\n\r\n", "it is not a tailnet host"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\nno such host", "no connection"),
        (b"nonsense\r\n\r\n", "no connection"),
        (b"", "it closed the connection"),
    ],
)
def test_a_refusal_of_tailscaled_is_an_error(tmp_path: Path, answer: bytes, why: str) -> None:
    """Whatever it answers but 101."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(IssuerUnreachableError, match=why):
            dial_through_tailscaled(path, "tailbone", 80, timeout_s=5)
        thread.join()
