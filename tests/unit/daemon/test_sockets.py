"""The directory of the servers' sockets."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import pytest

from tailbone.daemon.sockets import socket_directory
from tailbone.errors import ConfigError
from tailbone.process.signals import Stop

if TYPE_CHECKING:
    from pathlib import Path


def test_only_this_user_can_enter_it(tmp_path: Path) -> None:
    with socket_directory(tmp_path, None) as path:
        assert path.stat().st_mode & 0o777 == 0o700


def test_it_is_removed_with_its_sockets(tmp_path: Path) -> None:
    with socket_directory(tmp_path, None) as path:
        (path / "issuer").touch()
    assert path.exists() is False


def test_a_second_signal_removes_it(tmp_path: Path) -> None:
    stop = Stop()
    with socket_directory(tmp_path, stop) as path:
        for call in stop.before_exit:
            call()
        assert path.exists() is False


def test_it_is_in_the_nodes_directory_where_no_temporary_one_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with socket_directory(tmp_path, None) as path:
        assert path.parent == tmp_path


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names TMPDIR, and the directory is gone."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(ConfigError, match="TMPDIR"), socket_directory(tmp_path, None):
        pass
    assert list(long.iterdir()) == []
