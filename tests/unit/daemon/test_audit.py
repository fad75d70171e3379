"""The audit file of the settings, and the lines about its rotation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from harness.log import Lines

from tailbone.config.load import load
from tailbone.daemon.audit import open_audit_file, reopen
from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def test_without_the_setting_there_is_none() -> None:
    assert open_audit_file(load(environ={})) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [("none/audit", "cannot be opened: No such file or directory"), ("link", "is a symbolic link")],
)
def test_a_file_that_cannot_be_used_is_a_wrong_setting(tmp_path: Path, name: str, why: str) -> None:
    """The message names the setting and its source."""
    (tmp_path / "link").symlink_to("audit")
    path = tmp_path / name
    with pytest.raises(ConfigError) as error:
        open_audit_file(load({"log.auditFile": str(path)}, environ={}))
    assert str(error.value) == f"log.auditFile (flag --audit-file): {path} {why}"


def test_a_rotation_is_logged(tmp_path: Path) -> None:
    """One line says whether the file was opened again."""
    log: Any = Lines()
    path = tmp_path / "audit"
    file = open_audit_file(load({"log.auditFile": str(path)}, environ={}))
    assert file is not None
    reopen(file, log)
    path.chmod(0o666)
    reopen(file, log)
    file.close()
    assert log.lines == [
        ("info", "audit file reopened", {}),
        (
            "error",
            "audit file not reopened: its lines still go to the previous one",
            {"why": f"is refused: everybody can read it; run  chmod 600 {path}"},
        ),
    ]
