"""The store of a bucket that is a directory."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.store_contract import HOW, PATH, StoreContract

from tailbone.errors import ForeignDocumentError, StoreDeniedError, StoreError
from tailbone.jwks.directory import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "bucket")


@pytest.fixture
def take_away(tmp_path: Path) -> Callable[[], None]:
    """Delete the document as another program would."""
    return (tmp_path / "bucket" / PATH).unlink


class TestAsAnyStore(StoreContract):
    """A directory fulfils the contract of stores."""


async def test_reading_creates_nothing(store: DirectoryStore, tmp_path: Path) -> None:
    """A read creates neither the document nor the directory."""
    assert await store.read(PATH) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../out", "a/../../out"])
async def test_a_path_out_of_the_directory_is_refused(store: DirectoryStore, path: str) -> None:
    """The path is a setting, and may be wrong."""
    with pytest.raises(StoreError, match="is not a path inside"):
        await store.read(path)


async def test_everybody_may_read_the_document(store: DirectoryStore, tmp_path: Path) -> None:
    """A web server that runs as another user can serve it."""
    await store.write(PATH, b"one", etag=None, **HOW)
    assert (tmp_path / "bucket" / PATH).stat().st_mode & 0o777 == 0o644


async def test_a_directory_in_place_of_the_document_is_an_error(
    store: DirectoryStore, tmp_path: Path
) -> None:
    """It does not count as a missing document."""
    (tmp_path / "bucket" / PATH).mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot read"):
        await store.read(PATH)


async def test_a_pipe_or_a_device_is_refused(store: DirectoryStore, tmp_path: Path) -> None:
    """It is not read, so the read cannot hang."""
    (tmp_path / "bucket" / PATH).parent.mkdir(parents=True)
    for target in ("pipe", "/dev/zero"):
        if target == "pipe":
            os.mkfifo(tmp_path / target)
        (tmp_path / "bucket" / PATH).unlink(missing_ok=True)
        (tmp_path / "bucket" / PATH).symlink_to(tmp_path / target)
        with pytest.raises(
            ForeignDocumentError, match=r"is not a regular file, so it cannot be a JWKS.*delete it"
        ):
            await store.read(PATH)


async def test_a_file_too_long_for_a_jwks_is_not_read(store: DirectoryStore, tmp_path: Path) -> None:
    """A sparse file of 3 GB takes no space on disk, but would in memory."""
    (tmp_path / "bucket" / PATH).parent.mkdir(parents=True)
    (tmp_path / "bucket" / PATH).touch()
    os.truncate(tmp_path / "bucket" / PATH, 3_000_000_000)
    with pytest.raises(ForeignDocumentError, match="is longer than 1048576 bytes"):
        await store.read(PATH)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_directory_that_may_not_be_written_is_denied(store: DirectoryStore, tmp_path: Path) -> None:
    """The error says which permission is missing."""
    (tmp_path / "bucket").mkdir(mode=0o500)
    with pytest.raises(StoreDeniedError, match="grant this user the permission"):
        await store.write(PATH, b"one", etag=None, **HOW)


ADD = """
import asyncio, sys
from pathlib import Path
from tailbone.errors import StoreConflictError
from tailbone.jwks.directory import DirectoryStore

async def main():
    store, how = DirectoryStore(Path(sys.argv[1])), dict(content_type="", cache_control="")
    for number in range(25):
        while True:
            stored = await store.read("lines")
            before = stored.data if stored else b""
            line = f"{sys.argv[2]} {number}\\n".encode()
            try:
                await store.write("lines", before + line, etag=stored.etag if stored else None, **how)
                break
            except StoreConflictError:
                pass

asyncio.run(main())
"""


def test_four_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each of a hundred compare-and-swaps succeeds in the end."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    writers = [
        subprocess.Popen([sys.executable, "-c", ADD, tmp_path / "bucket", name], env=env) for name in "abcd"
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    lines = (tmp_path / "bucket" / "lines").read_text().splitlines()
    assert sorted(lines) == sorted(f"{name} {number}" for name in "abcd" for number in range(25))


async def test_the_next_write_removes_the_rest_of_a_killed_one(store: DirectoryStore, tmp_path: Path) -> None:
    """Temporary files would accumulate in a directory that a web server serves."""
    await store.write(PATH, b"one", etag=None, **HOW)
    left = tmp_path / "bucket" / ".well-known" / ".jwks.json.0123456789abcdef.tmp"
    left.write_bytes(b"par")
    await store.write(PATH, b"two", etag=None, conditional=False, **HOW)
    assert not left.exists()


async def test_a_waiting_writer_does_not_stop_the_event_loop(store: DirectoryStore, tmp_path: Path) -> None:
    """The lock is waited for in a thread."""
    from tailbone.files import ProcessLock

    await store.write(PATH, b"one", etag=None, **HOW)
    lock = ProcessLock(tmp_path / "bucket" / ".well-known" / ".jwks.json.lock")
    assert lock.try_acquire()
    writing = asyncio.ensure_future(store.write(PATH, b"two", etag=None, conditional=False, **HOW))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not writing.done()
    lock.release()
    await writing
