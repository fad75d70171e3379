"""AuditLog: lines that must be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from tailbone.errors import LogUnavailableError
from tailbone.process.audit_log import AuditLog

if TYPE_CHECKING:
    from tailbone.process.log import Logger


class Disk:
    """A log on a disk that may be full."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.full = False

    def info(self, event: str, **fields: Any) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.lines.append(f"{event} {fields}")


def test_a_line_that_cannot_be_written_is_an_error() -> None:
    """The message names no disk; the detail does."""
    disk = Disk()
    audit = AuditLog(cast("Logger", disk))
    disk.full = True
    with pytest.raises(LogUnavailableError) as refused:
        audit.write("token issued", sub="user:1")
    assert "space" in refused.value.detail
    assert "space" not in refused.value.message


def test_the_log_is_a_reason_until_a_line_can_be_written() -> None:
    """Asking for reasons writes a line if the last one was lost, and none otherwise."""
    disk = Disk()
    audit = AuditLog(cast("Logger", disk))
    assert audit.reasons() == ()
    disk.full = True
    with pytest.raises(LogUnavailableError):
        audit.write("token issued")
    assert [problem.code for problem in audit.reasons()] == ["log_unavailable"]
    disk.full = False
    assert audit.reasons() == ()
    assert audit.reasons() == ()
    assert disk.lines == ["the lines of tokens can be written again {}"]
