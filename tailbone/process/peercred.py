"""Which process is at the other end of a Unix socket."""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple

_UCRED: Final = struct.Struct("3i")

# macOS: getsockopt(0, LOCAL_PEERCRED) fills a struct xucred (sys/ucred.h), which begins with version and uid.
_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = 1
_XUCRED: Final = struct.Struct("IIh2x16I")


class Credentials(NamedTuple):
    """The process that connected, as of that moment (SO_PEERCRED, unix(7))."""

    pid: int
    uid: int
    gid: int


def peer_credentials(connection: socket.socket) -> Credentials:
    """Return the credentials of a connected Unix socket's peer, which the kernel has recorded."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(raw))


def peer_uid(connection: socket.socket) -> int:
    """Return the user id of a connected Unix socket's peer, on Linux and on macOS (unix(4))."""
    if hasattr(socket, "SO_PEERCRED"):
        return peer_credentials(connection).uid
    raw = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size)
    uid: int = _XUCRED.unpack(raw)[1]
    return uid
