"""``tailbone agent``: its files, and the flags that contradict each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from harness.issuers import LoopbackIssuer


def test_once_writes_the_files_and_ends(issuer: LoopbackIssuer, tmp_path: Path) -> None:
    """Only this user can read them."""
    file = tmp_path / "token"
    result = issuer.run("agent", "--file", f"service={file}", "--once")
    assert result.exit_code == 0
    assert file.read_text() == issuer.token
    assert file.stat().st_mode & 0o777 == 0o600


def test_once_without_files_is_wrong_usage(issuer: LoopbackIssuer) -> None:
    """The message names the flags that name files."""
    result = issuer.run("agent", "--once")
    assert result.exit_code == 2
    assert "name one with --file or --from" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "127.0.0.1:0"], "--listen and --bearer-file need each other"),
        (["--bearer-file", "bearer"], "--listen and --bearer-file need each other"),
        (["--listen", "192.0.2.1:80", "--bearer-file", "bearer"], "--listen must be a loopback address"),
        (["--listen", "127.0.0.1", "--bearer-file", "bearer"], "--listen must be a loopback address"),
        (["--listen", "127.0.0.1:0", "--bearer-file", "bearer"], "at least 16 characters"),
    ],
)
def test_listening_needs_loopback_and_a_bearer_token(
    issuer: LoopbackIssuer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    """Any local user can connect to a loopback port."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bearer").write_text("short")
    (tmp_path / "bearer").chmod(0o600)
    result = issuer.run("agent", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("mode", [0o604, 0o602])
def test_a_bearer_token_that_everybody_has_is_refused(
    issuer: LoopbackIssuer, tmp_path: Path, mode: int
) -> None:
    """The message says what to run."""
    bearer = tmp_path / "bearer"
    bearer.write_text("0123456789abcdef")
    bearer.chmod(mode)
    result = issuer.run("agent", "--listen", "127.0.0.1:0", "--bearer-file", bearer)
    assert result.exit_code == 2
    assert f"run chmod 600 {bearer}" in result.stderr


def test_a_bearer_token_is_in_a_file(issuer: LoopbackIssuer, tmp_path: Path) -> None:
    """A device is wrong usage, and a missing file a failure."""
    results = [
        issuer.run("agent", "--listen", "127.0.0.1:0", "--bearer-file", path)
        for path in ("/dev/null", tmp_path / "none")
    ]
    assert [result.exit_code for result in results] == [2, 1]
    assert "is not a regular file" in results[0].stderr
    assert "No such file" in results[1].stderr
