"""The audit file: whose it is, what its lines are, and its rotation."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness.waiting import until

from tailbone.process.audit_file import AuditFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[AuditFile]:
    file = AuditFile(tmp_path / "audit")
    yield file
    file.close()


def events(path: Path) -> list[str]:
    """Return the events of a file's lines."""
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_line(audit: AuditFile, tmp_path: Path) -> None:
    """It is JSON; the outcome is ok unless it is another one; a token is masked."""
    audit.required.info("token issued", sub="user:1", aud="eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.")
    audit.log.info("token refused", outcome="denied")
    first, second = (json.loads(line) for line in (tmp_path / "audit").read_text().splitlines())
    assert list(first) == ["time", "level", "event", "outcome", "sub", "aud"]
    assert (first["outcome"], first["aud"], second["outcome"]) == ("ok", "[redacted]", "denied")


def test_lines_of_several_processes_do_not_mix(audit: AuditFile, tmp_path: Path) -> None:
    """Long ones, too: each is one write."""
    path = tmp_path / "audit"
    script = (
        "import sys; from pathlib import Path; from tailbone.process.audit_file import AuditFile\n"
        "file = AuditFile(Path(sys.argv[1]))\n"
        "for _ in range(50): file.required.info('theirs', text='x' * 50_000)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(path)])
    until(lambda: path.stat().st_size, "the first line", timeout_s=60)
    for _ in range(50):
        audit.required.info("ours", text="y" * 50_000)
    assert other.wait(60) == 0
    assert Counter(events(path)) == {"ours": 50, "theirs": 50}


def test_only_the_owner_can_read_it(audit: AuditFile, tmp_path: Path) -> None:
    """A new file has mode 0600, whatever the umask is."""
    assert stat.S_IMODE((tmp_path / "audit").stat().st_mode) == 0o600
    before = os.umask(0)
    try:
        AuditFile(tmp_path / "second").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "second").stat().st_mode) == 0o600
    assert not os.get_inheritable(audit.fileno())


def test_an_existing_file_is_continued(tmp_path: Path) -> None:
    """A last line that was cut off stays alone on its line."""
    path = tmp_path / "audit"
    path.write_text('{"event":"whole"}\n{"event":"cut')
    path.chmod(0o600)
    file = AuditFile(path)
    file.required.info("next")
    file.close()
    whole, cut, following = path.read_text().splitlines()
    assert (whole, cut, json.loads(following)["event"]) == ('{"event":"whole"}', '{"event":"cut', "next")


def link(path: Path) -> None:
    path.symlink_to(path.with_name("target"))


def everybody_reads(path: Path) -> None:
    path.touch()
    path.chmod(0o644)


def everybody_writes(path: Path) -> None:
    path.touch()
    path.chmod(0o602)


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (link, "is a symbolic link"),
        (os.mkfifo, "is not a regular file"),
        (everybody_reads, "is refused: everybody can read it; run  chmod 600 {path}"),
        (everybody_writes, "is refused: everybody can write it; run  chmod 600 {path}"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, prepare: Callable[[Path], Any], why: str) -> None:
    """Nothing is created where a link points, and no reader of a pipe is waited for."""
    path = tmp_path / "audit"
    prepare(path)
    with pytest.raises(ValueError, match=f"^{re.escape(why.format(path=path))}$"):
        AuditFile(path)
    assert not (tmp_path / "target").exists()


def test_a_file_that_the_group_can_read(tmp_path: Path) -> None:
    """As logs often are."""
    path = tmp_path / "audit"
    path.touch()
    path.chmod(0o640)
    AuditFile(path).close()


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """A folder, or a file in a folder that does not exist."""
    with pytest.raises(IsADirectoryError):
        AuditFile(tmp_path)
    with pytest.raises(FileNotFoundError):
        AuditFile(tmp_path / "none" / "audit")


def test_rotation(audit: AuditFile, tmp_path: Path) -> None:
    """Lines go to the renamed file until the path is opened again."""
    path, old = tmp_path / "audit", tmp_path / "audit.1"
    audit.required.info("first")
    path.rename(old)
    audit.required.info("second")
    audit.reopen()
    audit.required.info("third")
    assert (events(old), events(path)) == (["first", "second"], ["third"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_rotation_that_fails(audit: AuditFile, tmp_path: Path) -> None:
    """Lines go on to the old file, and no descriptor is left open."""
    path, old = tmp_path / "audit", tmp_path / "audit.1"
    path.rename(old)
    os.mkfifo(path)
    before = descriptors()
    with pytest.raises(ValueError, match="is not a regular file"):
        audit.reopen()
    audit.required.info("line")
    assert (events(old), descriptors()) == (["line"], before)


def test_the_last_lines(audit: AuditFile, tmp_path: Path) -> None:
    """The newest first, whole ones only, also of a file that is longer than what is read."""
    assert audit.last(3) == []
    for number in range(2000):
        audit.log.info("event", number=number)
    with (tmp_path / "audit").open("a") as file:
        file.write('{"torn')
    assert [json.loads(line)["number"] for line in audit.last(3)] == [1999, 1998, 1997]
    every = audit.last(5000)
    assert 100 < len(every) < 2000
    assert [json.loads(line)["number"] for line in every] == list(range(1999, 1999 - len(every), -1))
