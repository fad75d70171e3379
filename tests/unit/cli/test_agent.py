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
    result = issuer.run("agent", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
