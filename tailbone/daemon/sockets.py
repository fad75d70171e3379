"""The directory of the Unix sockets between the node's bridge and the servers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tailbone.errors import ConfigError
from tailbone.temporary import TemporaryFolder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tailbone.process.signals import Stop

_LONGEST_PATH = 100
"""Unix socket paths end at 107 bytes (unix(7)); the file's own name is part of it."""


@contextmanager
def socket_directory(node_dir: Path, stop: Stop | None) -> Iterator[Path]:
    """Make a directory that only this user can enter, and remove it at the end.

    A process that can connect to its sockets could pass for a peer of the tailnet.

    Args:
        node_dir: where to make it when no temporary directory can be written, as in a read-only container.
        stop: removes the directory, too, when a second signal ends the process at once.

    Raises:
        ConfigError: its path is too long for the path of a socket.
    """
    try:
        folder = TemporaryFolder.make()
    except OSError:
        folder = TemporaryFolder.make(parent=node_dir)
    if stop is not None:
        stop.before_exit.append(folder.remove)
    try:
        if len(str(folder.path)) > _LONGEST_PATH:
            raise ConfigError(
                f"{folder.path} is too long for the path of a socket: "
                "set TMPDIR to a directory with a shorter path"
            )
        yield folder.path
    finally:
        folder.remove()
