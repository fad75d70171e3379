"""Connect to a host of the tailnet: directly, or through tailscaled."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from pathlib import Path
from typing import Final

from tailbone.errors import IssuerUnreachableError, NotTailnetError
from tailbone.text import quote

_TAILNET: Final = tuple(map(ipaddress.ip_network, ("100.64.0.0/10", "fd7a:115c:a1e0::/48")))
"""The addresses that Tailscale gives to nodes."""

_TAILSCALED: Final = "/var/run/tailscale/tailscaled.sock"
_HEAD_LIMIT: Final = 8192


def _is_tailnet(address: str) -> bool:
    """Return whether an address is in a tailnet, or on this machine, where `tailbone dev` is."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return parsed.is_loopback or any(parsed in network for network in _TAILNET)


def reason_of(error: OSError) -> str:
    """Return the short text of a system error."""
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return error.strerror or "it is unreachable"


def dial_directly(host: str, port: int, *, any_address: bool, timeout_s: float) -> socket.socket:
    """Connect over this machine's own network.

    Args:
        host: name or address.
        port: TCP port.
        any_address: connect to any address, not only to tailnet and loopback ones.
        timeout_s: for each address, and for each later read and write.

    Raises:
        NotTailnetError: the host has no tailnet address here, so it may be somebody else's machine.
        IssuerUnreachableError: the name is unknown, or no address answers.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the latter for a label that is empty or too long
        raise IssuerUnreachableError(f"the name {quote(host)} is unknown here") from None
    addresses = [str(entry[4][0]) for entry in found]
    allowed = addresses if any_address else [address for address in addresses if _is_tailnet(address)]
    if not allowed:
        raise NotTailnetError(
            f"{quote(host)} has the address {addresses[0]} here, which is not a tailnet address "
            f"({', '.join(map(str, _TAILNET))}): it may be another machine (--any-address allows it)"
        )
    reason = ""
    for address in allowed:
        try:
            return socket.create_connection((address, port), timeout_s)
        except OSError as error:
            reason = reason_of(error)
    raise IssuerUnreachableError(f"{quote(host)} port {port} cannot be reached: {reason}")


def dial_unix(path: Path | str, *, timeout_s: float) -> socket.socket:
    """Connect to a Unix socket.

    Raises:
        OSError: nothing listens there, or this system has no such sockets.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout_s)
    try:
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def tailscaled_socket() -> Path | None:
    """Return the socket of tailscaled's LocalAPI (``TS_SOCKET``, as in containers); None if there is none."""
    path = Path(os.environ.get("TS_SOCKET") or _TAILSCALED)
    return path if hasattr(socket, "AF_UNIX") and os.access(path, os.W_OK) else None


def dial_through_tailscaled(local_api: Path, host: str, port: int, *, timeout_s: float) -> socket.socket:
    """Connect to a tailnet host by tailscaled's LocalAPI, which also works with userspace networking.

    ``POST /localapi/v0/dial`` (tailscale.com/ipn/localapi, serveDial) resolves MagicDNS names, and never
    leaves the tailnet.

    Raises:
        IssuerUnreachableError: tailscaled cannot connect to that host.
    """
    connection = None
    try:
        connection = dial_unix(local_api, timeout_s=timeout_s)
        connection.sendall(
            b"POST /localapi/v0/dial HTTP/1.1\r\nHost: local-tailscaled.sock\r\nContent-Length: 0\r\n"
            b"Connection: upgrade\r\nUpgrade: ts-dial\r\nDial-Network: tcp\r\n"
            + f"Dial-Host: {host}\r\nDial-Port: {port}\r\n\r\n".encode("ascii")
        )
        status = _read_status(connection)
    except OSError as error:
        status, why = 0, reason_of(error)
    else:
        why = "it is not a tailnet host" if status == 200 else "no connection"
    if connection is not None and status == 101:
        return connection
    if connection is not None:
        connection.close()
    raise IssuerUnreachableError(f"tailscaled at {local_api}: {quote(host)} port {port}: {why}")


def _read_status(connection: socket.socket) -> int:
    """Read the head of an answer, and no byte of what follows; return its status."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte or len(head) >= _HEAD_LIMIT:
            raise ConnectionResetError(errno.ECONNRESET, "it closed the connection")
        head += byte
    status = head.split(b" ", 2)[1:2]
    return int(status[0]) if status and status[0].isdigit() else 0
