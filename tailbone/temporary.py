"""Temporary folders that end with their process: after a kill, the next start removes them."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final, Self

from tailbone.files import ProcessLock

_PREFIX: Final = "tailbone-"
_LOCK: Final = ".tailbone-lock"
"""Held as long as the process lives. A folder without this file is never removed: it is somebody else's."""


class TemporaryFolder:
    """A folder that only this user can enter.

    Attributes:
        path: its absolute path.
    """

    def __init__(self, path: Path, lock: ProcessLock) -> None:
        """Own a folder whose lock is held; see ``make``."""
        self.path = path
        self._lock = lock

    @classmethod
    def make(cls, *, parent: Path | None = None, name: str = "") -> Self:
        """Make a folder, and remove those beside it whose processes were killed.

        Args:
            parent: where; by default the system's folder for temporary files (TMPDIR).
            name: part of the folder's name.

        Raises:
            OSError: it cannot be made.
        """
        parent = (parent or Path(tempfile.gettempdir())).absolute()
        _remove_abandoned(parent)
        while True:
            folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{name}", dir=parent))
            lock = ProcessLock(folder / _LOCK)
            try:
                locked = lock.try_acquire()
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            if locked:
                return cls(folder, lock)
            # Another process took it for an abandoned one, and removes it.

    def remove(self) -> None:
        """Remove the folder and its contents; idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        if not _is_ours(folder):
            continue
        lock = ProcessLock(folder / _LOCK)
        try:
            if lock.try_acquire():
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            continue  # its own process has removed it meanwhile
        finally:
            lock.release()


def _is_ours(folder: Path) -> bool:
    """Return whether a process of this user made the folder: others, too, can write to the parent."""
    try:
        status, lock = folder.lstat(), (folder / _LOCK).lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == lock.st_uid == os.geteuid()
