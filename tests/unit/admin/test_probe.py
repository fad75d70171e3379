"""Why a server cannot be reached."""

from __future__ import annotations

import socket

import pytest

from tailbone.admin.probe import why_unreachable


@pytest.mark.parametrize("error", [socket.gaierror(-2, "unknown"), UnicodeError("label too long")])
def test_no_such_host(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A host that does not resolve is named, with the two likely causes."""

    def resolve(*_: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert why_unreachable("no-such-host", 50051) == (
        "no host 'no-such-host' is known here: is this machine on the tailnet? --host names the server"
    )


def test_ipv6_addresses_are_bracketed(closed_port: int) -> None:
    """An IPv6 address is in brackets, apart from its port."""
    assert why_unreachable("::1", closed_port).startswith(
        (f"nothing listens on [::1]:{closed_port}", "[::1]:")
    )
