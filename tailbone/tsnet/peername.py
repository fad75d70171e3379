"""Peer names: how a bridged connection says which tailnet address is behind it.

The bridge (tsnet_go) binds its end of each Unix connection to the abstract address
``tailnet/<64 random bits>/<listener>/<ip:port>/<number>``. Sanic and gRPC give that as the peer's name.
"""

from __future__ import annotations

from urllib.parse import unquote

from tailbone.errors import UnknownCallerError
from tailbone.text import safe_text


def source_of(peer: object, prefix: str) -> str:
    """Return the tailnet address behind a connection.

    Args:
        peer: the peer's name: bytes from a socket (``b"\\0tailnet/…"``), or text from gRPC
            (``unix-abstract:tailnet/…``, where some characters are percent-encoded).
        prefix: ``tailnet/<64 random bits>/`` of the bridge in this process. It tells bridges apart and keeps
            no secret: ``/proc/net/unix`` shows the names of all sockets to every user of the machine. What
            keeps other users out is the directory of the listening sockets, which only this user can enter.

    Returns:
        ``ip:port``; IPv6 in brackets.

    Raises:
        UnknownCallerError: the connection did not come over the bridge.
    """
    name = _name_of(peer)
    parts = name.removeprefix(prefix).split("/")
    if not name.startswith(prefix) or len(parts) != 3:
        raise UnknownCallerError(
            "the caller did not come over the tailnet", detail=f"from {address_of(peer) or 'nowhere'}"
        )
    return parts[1]


def address_of(peer: object) -> str:
    """Return what a log may show of a peer's name, which is never its random part.

    Returns:
        ``ip:port`` of a bridged peer; the kind of any other address; empty without a name.
    """
    name = _name_of(peer)
    parts = name.split("/")
    if parts[0] == "tailnet" and len(parts) == 5:
        return safe_text(parts[3])
    return safe_text(name.partition(":")[0].partition("/")[0])


def _name_of(peer: object) -> str:
    if isinstance(peer, bytes):
        return peer.decode("ascii", "replace").removeprefix("\0")
    if isinstance(peer, str):
        return unquote(peer.removeprefix("unix-abstract:")).removeprefix("\0")
    return ""
