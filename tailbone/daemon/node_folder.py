"""Check the folders with a server's state: which other users can change them, and whether they persist."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tailbone.errors import TailnetError
from tailbone.files import fix_of_denial, others_who_can

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tailbone.config.model import Config
    from tailbone.process.log import Logger

_NODE_STATE: Final = "tailscaled.state"
_MOUNTS: Final = Path("/proc/self/mountinfo")
_VOLATILE: Final = frozenset({"overlay", "tmpfs", "ramfs"})


def check_folders(config: Config, log: Logger) -> None:
    """Check the folders of node and keys; see ``KeyFolder`` for who else can change the keys.

    Raises:
        TailnetError: see ``check_node_folder``.
    """
    node = Path(config.server.tailscale.dir)
    for warning in check_node_folder(node):
        log.warning(warning)
    folders = [Path(config.keys.dir), *(() if config.server.tailscale.ephemeral else (node,))]
    volatile = volatile_folders(folders, _MOUNTS.read_text())
    if volatile:
        log.warning(
            "this state is lost with the container, or at the next reboot: put it on a volume",
            folders=[str(folder) for folder in volatile],
        )


def check_node_folder(folder: Path) -> list[str]:
    """Check that this user can use the node's state, and which others could copy or replace it.

    Returns:
        Warnings.

    Raises:
        TailnetError: this user cannot, or every user can; the message says what to do.
    """
    state = folder / _NODE_STATE
    _check_usable(folder)
    _check_usable(state)
    fix = f"chmod o-w {shlex.quote(str(folder))}, or name a folder inside it (--ts-dir)"
    return [
        *_check_access(folder, stat.S_IWOTH, "write to the node's folder", fix),
        *_check_access(
            state,
            stat.S_IROTH | stat.S_IWOTH,
            "read or write the node's state",
            f"chmod 600 {shlex.quote(str(state))}",
        ),
    ]


def _check_usable(path: Path) -> None:
    """Check this user's access to a file or folder, or to the nearest parent, if it does not exist yet.

    Raises:
        TailnetError: it is denied.
    """
    path = path.absolute()
    existing = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
    if os.access(existing, os.R_OK | os.W_OK if existing == path else os.W_OK):
        return
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        raise TailnetError(
            f"the node's state cannot be written: {existing} is read-only: mount a volume there"
        )
    raise TailnetError(f"the node's state cannot be read and written; {fix_of_denial(path)}")


def _check_access(path: Path, access: int, can: str, fix: str) -> list[str]:
    try:
        status = path.stat()
    except OSError:
        return []  # does not exist yet, or the node reports why it cannot use it
    who = others_who_can(access, status.st_mode, status.st_uid)
    if who == "everybody":
        raise TailnetError(f"everybody can {can} {path}: run  {fix}")
    return [f"{who} can {can} {path}"] if who else []


def volatile_folders(folders: Iterable[Path], mountinfo: str) -> list[Path]:
    """Return the folders that are lost with this container or at the next reboot.

    They are on the container's own file system, or in memory.

    Args:
        folders: the folders to check; for one that does not exist yet, its nearest parent counts.
        mountinfo: the content of ``/proc/self/mountinfo`` (proc(5)).
    """
    types = {}
    for line in mountinfo.splitlines():
        mount, _, file_system = line.partition(" - ")
        types[mount.split()[2]] = file_system.split()[0]
    return [folder for folder in folders if types.get(_device(folder.absolute())) in _VOLATILE]


def _device(folder: Path) -> str:
    """Return the device of a folder, as mountinfo writes it."""
    for path in (folder, *folder.parents):
        try:
            number = path.stat().st_dev
        except OSError:
            continue  # does not exist yet
        return f"{os.major(number)}:{os.minor(number)}"
    return ""
