"""Peer names: how a bridged connection tells who is behind it.

The bridge (tsnet_go/bridge.go) binds its end of each Unix connection to the abstract address
``tailnet/<64 random bits>/<listener>/<ip:port>/<number>``. Sanic and gRPC hand that to us as the peer's name.
"""

from __future__ import annotations

from urllib.parse import unquote

from tailbone.errors import UnknownCallerError
from tailbone.token.identity import address_of


def source_of(peer: object, prefix: str) -> str:
    """The tailnet address behind a connection.

    Args:
        peer: the peer's name: bytes from a socket (``b"\\0tailnet/…"``), or text from gRPC
            (``unix-abstract:tailnet/…``, where some characters are percent-encoded).
        prefix: ``tailnet/<64 random bits>/`` of the bridge in this process. A local process cannot
            guess it, so that it cannot pass for a tailnet peer.

    Returns:
        ``ip:port``; IPv6 in brackets.

    Raises:
        UnknownCallerError: the connection did not come over the bridge.
    """
    if isinstance(peer, bytes):
        name = peer[1:].decode("ascii", "replace")
    elif isinstance(peer, str):
        name = unquote(peer.removeprefix("unix-abstract:")).removeprefix("\0")
    else:
        name = ""
    if not name.startswith(prefix):
        raise UnknownCallerError(
            "the caller did not come over the tailnet", detail=f"from {address_of(peer) or 'nowhere'}"
        )
    parts = name[len(prefix) :].split("/")
    if len(parts) != 3:
        raise UnknownCallerError(
            "the caller did not come over the tailnet", detail=f"from {address_of(peer) or 'nowhere'}"
        )
    return parts[1]
