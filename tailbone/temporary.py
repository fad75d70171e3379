"""Temporary folders that are removed with their process; after a kill, the next start removes them."""

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
"""Held while the process runs. A folder without this file belongs to another program, and is not removed."""


class TemporaryFolder:
    """A folder that only this user can enter.

    Attributes:
        path: its absolute path.
    """

    def __init__(self, path: Path, lock: ProcessLock) -> None:
        """Take over a folder whose lock is held; see ``make``."""
        self.path = path
        self._lock = lock

    @classmethod
    def make(cls, *, parent: Path | None = None, name: str = "") -> Self:
        """Create a folder, and remove those beside it whose processes were killed.

        Args:
            parent: the folder to create it in; by default the system's for temporary files (TMPDIR).
            name: part of the folder's name.

        Raises:
            OSError: the folder cannot be created.
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
            # Another process found the folder before it was locked, and is removing it.

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
            continue  # its process has removed it meanwhile
        finally:
            lock.release()


def _is_ours(folder: Path) -> bool:
    """Return whether a process of this user created the folder, since others can write to the parent too."""
    try:
        status, lock = folder.lstat(), (folder / _LOCK).lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == lock.st_uid == os.geteuid()
