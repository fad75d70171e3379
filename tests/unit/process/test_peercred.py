"""The credentials of a Unix socket's peer, on real sockets."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

from tailbone.process.peercred import peer_credentials, peer_uid

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CONNECT = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.recv(1)
"""


def test_this_process_is_known() -> None:
    """Both ends of a pair belong to this process."""
    near, far = socket.socketpair()
    with near, far:
        assert peer_credentials(near) == (os.getpid(), os.geteuid(), os.getegid())
        assert peer_uid(near) == os.geteuid()


def test_another_process_has_its_own_id(tmp_path: Path) -> None:
    """The peer is the process that connected."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        with subprocess.Popen([sys.executable, "-c", CONNECT, path]) as child:
            connection, _ = listening.accept()
            with connection:
                assert peer_credentials(connection).pid == child.pid


def test_the_user_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the struct xucred of LOCAL_PEERCRED: version, uid, and up to 16 groups."""

    class Connection:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option, size) == (0, 1, 76)
            return struct.pack("=IIhxx16I", 0, 501, 1, 20, *[0] * 15)

    monkeypatch.delattr(socket, "SO_PEERCRED")
    assert peer_uid(Connection()) == 501  # type: ignore[arg-type]
