"""Which process is at the other end of a Unix socket."""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple

_UCRED: Final = struct.Struct("3i")


class Credentials(NamedTuple):
    """The process that connected, as of that moment (SO_PEERCRED, unix(7))."""

    pid: int
    uid: int
    gid: int


def peer_credentials(connection: socket.socket) -> Credentials:
    """Return the credentials of a connected Unix socket's peer, which the kernel has recorded."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(raw))
