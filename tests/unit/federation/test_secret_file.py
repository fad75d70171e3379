"""Files that contain one secret."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tailbone.errors import ConfigError
from tailbone.federation.secret_file import read_secret


def test_white_space_around_it_is_not_part_of_the_secret(tmp_path: Path) -> None:
    """Editors end files with a line break."""
    (tmp_path / "secret").write_text(" s\n")
    assert read_secret(str(tmp_path / "secret"), "setting") == "s"


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("missing", None, "missing cannot be read: No such file or directory"),
        ("empty", b"\n", "empty is empty"),
        ("binary", b"\xff", "binary cannot be read: not text"),
        ("large", bytes(1 << 21), "large cannot be read: File too large"),
    ],
)
def test_the_message_names_the_setting_and_the_file(
    file: str, content: bytes | None, why: str, tmp_path: Path
) -> None:
    """It says what is wrong, and shows nothing of the content."""
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        read_secret(str(tmp_path / file), "setting (flag --x)")
    assert raised.value.message == f"setting (flag --x): {tmp_path}/{why}"


def test_a_file_that_this_user_may_not_read() -> None:
    """The message names the user, who has no name in a container, and what helps."""
    before = os.geteuid()
    uid = before or 65534
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = Path(folder, "secret")
        file.touch(mode=0)
        os.seteuid(uid)
        try:
            with pytest.raises(ConfigError) as raised:
                read_secret(str(file), "setting")
        finally:
            os.seteuid(before)
    fix = f"this process is user {uid}: run  chown -R {uid} {file}"
    assert raised.value.message == f"setting: {file} cannot be read: Permission denied; {fix}"
