"""Peer names: how a bridged connection says which tailnet address is behind it.

The bridge (tsnet_go/internal/tailnode/peername.go) binds its end of each Unix connection to the abstract
address ``tailnet/<64 random bits>/<listener>/<ip:port>/<slot>.<generation>``. The last part is the
connection's place in the table of callers; it is ``<number>`` for a connection that has none. Sanic and gRPC
give the address as the peer's name.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

from tailbone.errors import UnknownCallerError
from tailbone.text import safe_text

_SLOT: Final = re.compile(r"([0-9a-z]{1,6})\.([0-9a-z]{1,7})")


class Slot(NamedTuple):
    """A connection's place in the table of callers."""

    number: int
    generation: int


class PeerName(NamedTuple):
    """What the peer's name of a bridged connection says.

    Attributes:
        source: the tailnet address behind the connection, ``ip:port``; IPv6 in brackets.
        slot: the connection's place in the table of callers; None for one without.
    """

    source: str
    slot: Slot | None


def parse(peer: object, prefix: str) -> PeerName:
    """Read the peer's name of a bridged connection.

    Args:
        peer: the peer's name: bytes from a socket (``b"\\0tailnet/…"``), or text from gRPC
            (``unix-abstract:tailnet/…``, where some characters are percent-encoded).
        prefix: ``tailnet/<64 random bits>/`` of the bridge in this process. It tells bridges apart and keeps
            no secret: ``/proc/net/unix`` shows the names of all sockets to every user of the machine. What
            keeps other users out is the directory of the listening sockets, which only this user can enter.

    Raises:
        UnknownCallerError: the connection did not come over the bridge.
    """
    found = _parse(peer, prefix) if isinstance(peer, bytes | str) else None
    if found is None:
        raise UnknownCallerError(
            "the caller did not come over the tailnet", detail=f"from {address_of(peer) or 'nowhere'}"
        )
    return found


# A name is parsed for each request, and means the same each time.
@lru_cache(maxsize=1024)
def _parse(peer: bytes | str, prefix: str) -> PeerName | None:
    name = _name_of(peer)
    parts = name.removeprefix(prefix).split("/")
    if not name.startswith(prefix) or len(parts) != 3:
        return None
    slot = _SLOT.fullmatch(parts[2])
    return PeerName(parts[1], None if slot is None else Slot(int(slot[1], 36), int(slot[2], 36)))


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
