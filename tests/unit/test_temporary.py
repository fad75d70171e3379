"""Temporary folders, and those of killed processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tailbone.temporary import TemporaryFolder

OTHER_PROCESS = """
import pathlib, sys
from tailbone.temporary import TemporaryFolder
folder = TemporaryFolder.make(parent=pathlib.Path(sys.argv[1]))
(folder.path / "secret").touch()
print(folder.path, flush=True)
sys.stdin.read()
"""


def other_process(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that owns a temporary folder; return both."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_only_this_user_can_enter(tmp_path: Path) -> None:
    """The folder's name begins with tailbone-; it can be removed repeatedly."""
    folder = TemporaryFolder.make(parent=tmp_path, name="dev-")
    assert folder.path.name.startswith("tailbone-dev-")
    assert folder.path.stat().st_mode & 0o777 == 0o700
    (folder.path / "file").touch()
    folder.remove()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_next_start_removes_folders_of_killed_processes(tmp_path: Path) -> None:
    """Folders of running processes, this one included, stay."""
    mine = TemporaryFolder.make(parent=tmp_path)
    killed, left = other_process(tmp_path)
    living, kept = other_process(tmp_path)
    with killed, living:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (left / "secret").exists()
        new = TemporaryFolder.make(parent=tmp_path)
        assert set(tmp_path.iterdir()) == {mine.path, kept, new.path}
        living.kill()


def test_folders_of_others_stay(tmp_path: Path) -> None:
    """Folders, files and links with similar names are not removed."""
    checkout = tmp_path / "tailbone-checkout"
    checkout.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / ".tailbone-lock").touch()
    (tmp_path / "tailbone-link").symlink_to(target)
    (tmp_path / "tailbone-file").touch()
    before = set(tmp_path.iterdir())
    TemporaryFolder.make(parent=tmp_path).remove()
    assert set(tmp_path.iterdir()) == before
    assert (target / ".tailbone-lock").exists()


def test_a_new_folder_that_another_start_removes_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another start may lock a new folder before its own process does."""
    from tailbone import temporary

    answers = iter([False, True])
    monkeypatch.setattr(temporary.ProcessLock, "try_acquire", lambda _: next(answers))
    TemporaryFolder.make(parent=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_parent_is_an_error(tmp_path: Path) -> None:
    """The system's error is raised."""
    with pytest.raises(FileNotFoundError):
        TemporaryFolder.make(parent=tmp_path / "none")
