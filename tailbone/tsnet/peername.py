"""Peer names: they contain the tailnet address of a bridged connection.

The bridge (tsnet_go/internal/tailnode/peername.go) binds its end of each Unix connection to the abstract
address ``tailnet/<64 random bits>/<listener>/<ip:port>/<slot>.<generation>``. The last part is the
connection's slot in the table of callers; a connection without a slot has ``<number>`` there. Sanic and gRPC
return the address as the peer's name.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

from tailbone.errors import UnknownCallerError
from tailbone.text import host_port, safe_text

_SLOT: Final = re.compile(r"([0-9a-z]{1,6})\.([0-9a-z]{1,7})")


class Slot(NamedTuple):
    """A connection's slot in the table of callers."""

    number: int
    generation: int


class PeerName(NamedTuple):
    """The parts of a peer's name.

    Attributes:
        source: the caller's tailnet address, ``ip:port``; IPv6 in brackets.
        slot: the connection's slot in the table of callers; None if it has none.
    """

    source: str
    slot: Slot | None


def parse(peer: object, prefix: str) -> PeerName:
    """Parse the peer's name of a bridged connection.

    Args:
        peer: the peer's name: bytes from a socket (``b"\\0tailnet/…"``), or text from gRPC
            (``unix-abstract:tailnet/…``, where some characters are percent-encoded).
        prefix: ``tailnet/<64 random bits>/`` of the bridge in this process. It distinguishes bridges and is
            not a secret: ``/proc/net/unix`` shows the names of all sockets to every user of the machine.
            Other users are kept out by the directory of the listening sockets, which only this user can
            enter.

    Raises:
        UnknownCallerError: the connection did not come over the bridge.
    """
    found = _parse(peer, prefix) if isinstance(peer, bytes | str) else None
    if found is None:
        raise UnknownCallerError(
            "the caller did not come over the tailnet", detail=f"from {address_of(peer) or 'nowhere'}"
        )
    return found


# The name of a connection is parsed for each request, with the same result.
@lru_cache(maxsize=1024)
def _parse(peer: bytes | str, prefix: str) -> PeerName | None:
    name = _name_of(peer)
    parts = name.removeprefix(prefix).split("/")
    if not name.startswith(prefix) or len(parts) != 3:
        return None
    slot = _SLOT.fullmatch(parts[2])
    return PeerName(parts[1], None if slot is None else Slot(int(slot[1], 36), int(slot[2], 36)))


# As for _parse, but of callers whose name is not the bridge's, too.
@lru_cache(maxsize=1024)
def address_of(peer: object) -> str:
    """Return the part of a peer's name that may be logged, never its random part.

    Returns:
        ``ip:port`` of a bridged peer, or of one over TCP; the kind of any other address; empty without a
        name.
    """
    if isinstance(peer, tuple):
        return host_port(*peer[:2])
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
