"""Facts about temporary folders, whose processes may be killed."""

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
    """A process that holds a temporary folder, and that folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_only_this_user_can_enter(tmp_path: Path) -> None:
    """Its name says whose it is; nothing is left of it after its removal, which can be repeated."""
    folder = TemporaryFolder.make(parent=tmp_path, name="dev-")
    assert folder.path.name.startswith("tailbone-dev-")
    assert folder.path.stat().st_mode & 0o777 == 0o700
    (folder.path / "file").touch()
    folder.remove()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_next_start_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    """With all its contents; folders of living processes stay, in this process or another."""
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
    """What only looks alike, such as a checkout, and what another name leads to."""
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


def test_a_new_folder_that_is_taken_for_an_abandoned_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made again: another start may lock it before its own process does."""
    from tailbone import temporary

    answers = iter([False, True])
    monkeypatch.setattr(temporary.ProcessLock, "try_acquire", lambda _: next(answers))
    TemporaryFolder.make(parent=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_no_place(tmp_path: Path) -> None:
    """An error of the system's."""
    with pytest.raises(FileNotFoundError):
        TemporaryFolder.make(parent=tmp_path / "none")
