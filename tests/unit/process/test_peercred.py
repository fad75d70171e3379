"""The credentials of a Unix socket's peer, on real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from tailbone.process.peercred import peer_credentials

if TYPE_CHECKING:
    from pathlib import Path

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
