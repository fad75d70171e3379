"""The sink writes whole lines or raises, so that no token leaves without its line."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tailbone.process.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HALF = 500
LINES = """
import json, os, sys
from types import SimpleNamespace
from tailbone.process import log

log.configure(SimpleNamespace(level="info", format="json", no_color=True))
audit, other = log.get_logger(strict=True), log.get_logger()
written, refused = [], 0
for number in range(2 * int(sys.argv[1])):
    if number == int(sys.argv[1]):
        print("half", file=sys.stderr, flush=True)
        sys.stdin.readline()
    try:
        audit.info("token issued", number=number, jti="x" * 150)
        written.append(number)
    except OSError:
        refused += 1
        other.error("request failed", number=-1)
print(json.dumps({"written": written, "refused": refused}), file=sys.stderr, flush=True)
"""


class Writer:
    """A process that writes the lines of 1,000 tokens, and reports which it could write."""

    def __init__(self, stdout: int, *, unbuffered: bool) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", LINES, str(HALF)],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environment | ({"PYTHONUNBUFFERED": "1"} if unbuffered else {}),
        )

    def wait_for_half(self) -> None:
        """Wait until it has tried the first 500."""
        assert self.process.stderr is not None
        assert self.process.stderr.readline() == b"half\n"

    def finish(self) -> dict[str, Any]:
        """Let it try the others and end; return its report."""
        _, report = self.process.communicate(b"\n", timeout=60)
        assert self.process.returncode == 0
        result: dict[str, Any] = json.loads(report)
        assert len(result["written"]) + result["refused"] == 2 * HALF
        return result


def numbers(log: bytes) -> list[int]:
    """Return the tokens whose line is whole; a torn line ends before the next begins."""
    found = []
    for line in log.splitlines():
        if line.endswith(b"}"):
            record = json.loads(line)
            if record["event"] == "token issued":
                found.append(record["number"])
    return found


@pytest.fixture(params=[False, True], ids=["buffered", "unbuffered"])
def unbuffered(request: pytest.FixtureRequest) -> bool:
    """Whether PYTHONUNBUFFERED is set, as in most containers."""
    return bool(request.param)


@contextmanager
def opened(path: Path | str) -> Iterator[int]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        yield fd
    finally:
        os.close(fd)


def test_a_rotated_file_gets_every_line(tmp_path: Path, unbuffered: bool) -> None:
    """Lines go to the file that was opened, even after it was renamed."""
    with opened(tmp_path / "log") as fd:
        writer = Writer(fd, unbuffered=unbuffered)
    writer.wait_for_half()
    (tmp_path / "log").rename(tmp_path / "log.1")
    result = writer.finish()
    assert result["written"] == list(range(2 * HALF))
    assert numbers((tmp_path / "log.1").read_bytes()) == result["written"]


def test_a_full_device_refuses_every_line(unbuffered: bool) -> None:
    """Each write raises, so no token leaves."""
    with opened("/dev/full") as fd:
        writer = Writer(fd, unbuffered=unbuffered)
    writer.wait_for_half()
    assert writer.finish()["written"] == []


def test_a_temporarily_full_disk_contains_only_issued_tokens(tmp_path: Path, unbuffered: bool) -> None:
    """A torn line ends before the next; lines of refused tokens never appear."""
    with opened(tmp_path / "log") as fd:
        writer = Writer(fd, unbuffered=unbuffered)
        limits = resource.prlimit(writer.process.pid, resource.RLIMIT_FSIZE, (20_001, resource.RLIM_INFINITY))
        writer.wait_for_half()
        assert os.fstat(fd).st_size == 20_001
        resource.prlimit(writer.process.pid, resource.RLIMIT_FSIZE, limits)
    result = writer.finish()
    log = (tmp_path / "log").read_bytes()
    assert numbers(log) == result["written"]
    assert 0 < len(result["written"]) < 2 * HALF
    assert result["written"][-HALF:] == list(range(HALF, 2 * HALF))


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "non-blocking"])
def test_a_stalled_pipe_refuses_lines_until_it_is_read(blocking: bool, unbuffered: bool) -> None:
    """Tokens are refused after one short wait, and issued when the pipe is read again."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 14)
    os.set_blocking(writing, blocking)
    writer = Writer(writing, unbuffered=unbuffered)
    os.close(writing)
    writer.wait_for_half()
    log = os.read(reading, 1 << 20)
    with os.fdopen(reading, "rb") as rest:
        assert writer.process.stdin is not None
        writer.process.stdin.write(b"\n")
        writer.process.stdin.flush()
        log += rest.read()
    result = writer.finish()
    assert numbers(log) == result["written"]
    assert 0 < len([number for number in result["written"] if number < HALF]) < HALF
    assert result["written"][-1] == 2 * HALF - 1


def test_a_closed_pipe_refuses_lines(unbuffered: bool) -> None:
    """The lines written before the close are those of the issued tokens."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    writer = Writer(writing, unbuffered=unbuffered)
    os.close(writing)
    writer.wait_for_half()
    log = os.read(reading, 1 << 20)
    os.close(reading)
    result = writer.finish()
    assert numbers(log) == result["written"] == list(range(HALF))


def full_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    return reading, writing


def test_a_stalled_reader_is_waited_for_once() -> None:
    """A wait blocks the event loop, so the second line fails at once."""
    reading, writing = full_pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "w") as stream:
        sink = Sink(stream)
        took = []
        for _ in range(2):
            begun = time.monotonic()
            with pytest.raises(TimeoutError):
                sink.write(b"line\n")
            took.append(time.monotonic() - begun)
        assert 0.2 < took[0] < 5
        assert took[1] < 0.2
        os.read(reading, 1 << 20)
        sink.write(b"line\n")
        assert os.read(reading, 100) == b"line\n"


def test_a_long_line_to_a_slow_reader_is_torn_and_ended() -> None:
    """A line longer than PIPE_BUF is written in parts, none of which blocks."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 14)
    with os.fdopen(reading, "rb"), os.fdopen(writing, "w") as stream:
        sink = Sink(stream)
        with pytest.raises(TimeoutError):
            sink.write(b"a" * (1 << 15) + b"\n")
        assert os.read(reading, 1 << 15) == b"a" * (1 << 14)
        sink.write(b"next\n")
        assert os.read(reading, 100) == b"\nnext\n"


def test_a_line_that_lacks_only_its_newline_counts_as_written(tmp_path: Path) -> None:
    """Otherwise a refused token would have its line in the log. The next write adds the newline."""
    path = tmp_path / "log"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with path.open("a") as stream:
        sink = Sink(stream)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4, limits[1]))
        try:
            sink.write(b"line\n")
            with pytest.raises(OSError, match="too large") as caught:
                sink.write(b"lost\n")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.errno == errno.EFBIG
        sink.write(b"next\n")
    assert path.read_bytes() == b"line\nnext\n"
