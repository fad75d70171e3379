"""Find out why a server cannot be reached: probe its address, and say in one line what to do."""

from __future__ import annotations

import socket
from typing import Final

from tailbone.text import host_port

_PROBE_TIME_S: Final = 3.0
_HTTP1_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
# The client's part of the connection preface: its magic, and an empty SETTINGS frame (RFC 9113 section 3.4).
_HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def why_unreachable(host: str, port: int) -> str:
    """Probe an address, and return why no admin API answers there.

    Returns:
        One line with what to do; "" when something there speaks HTTP/2, as gRPC does.
    """
    place = host_port(host, port)
    try:
        if _speaks_http2(_first_bytes(host, port, _HTTP2_PREFACE)):
            return ""
        first = _first_bytes(host, port, _HTTP1_REQUEST)
    except (socket.gaierror, UnicodeError):
        return f"no host {host!r} is known here: is this machine on the tailnet? --host names the server"
    except ConnectionRefusedError:
        return (
            f"nothing listens on {place}: is the server running, with the component admin? "
            "--port names another port"
        )
    except TimeoutError:
        return f"{place} does not answer: is the server running, and may this machine reach that port?"
    except OSError as error:
        return f"{place} cannot be reached: {error.strerror or error}"
    if first.startswith(b"HTTP/1."):
        return f"{place} speaks HTTP, not gRPC: --port names the admin API's port, 50051 unless it was set"
    return f"no admin API answers on {place}: --port names its port, 50051 unless it was set"


def _first_bytes(host: str, port: int, greeting: bytes) -> bytes:
    """Connect, send ``greeting``, and return the first bytes of the answer; empty for none."""
    with socket.create_connection((host, port), _PROBE_TIME_S) as connection:
        try:
            connection.sendall(greeting)
            return connection.recv(16)
        except (TimeoutError, ConnectionError):
            return b""


def _speaks_http2(first: bytes) -> bool:
    # A server begins with a SETTINGS frame; its type, 4, is the fourth octet (RFC 9113 sections 3.4 and 4.1).
    return first[3:4] == b"\x04" and first[:1] == b"\x00"
