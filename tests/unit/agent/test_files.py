"""Token files: their settings, and how one is written."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import stat
from typing import TYPE_CHECKING

import pytest
from harness.waiting import until_async

from tailbone.agent.files import Keeper, TokenFile, read_files, token_file
from tailbone.client.source import AsyncTokenSource
from tailbone.errors import ConfigError, IssuerUnreachableError

if TYPE_CHECKING:
    from pathlib import Path

    from unit.agent.conftest import Issuer


def test_the_settings_of_a_file(tmp_path: Path) -> None:
    """All are text; names become numbers."""
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    found = token_file(f"{tmp_path}/t", "a", ttl="30m", mode="0640", owner=user, group=group)
    expected = TokenFile(
        path=tmp_path / "t", audience="a", ttl=1800.0, mode=0o640, owner=os.getuid(), group=os.getgid()
    )
    assert found == expected
    assert token_file(f"{tmp_path}/t", "") == TokenFile(path=tmp_path / "t")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"ttl": "30"}, "ttl must be a duration"),
        ({"mode": "rw"}, "mode octal"),
        ({"mode": "0604"}, "must not give anything to others"),
        ({"mode": "04600"}, "must not give anything to others"),
        ({"owner": "nobody-has-this-name"}, "is unknown on this machine"),
        ({"group": "nobody-has-this-name"}, "is unknown on this machine"),
    ],
)
def test_a_wrong_setting_is_named(setting: dict[str, str], message: str, tmp_path: Path) -> None:
    """With the file that it is for."""
    with pytest.raises(ConfigError, match=message) as raised:
        token_file(f"{tmp_path}/t", "a", **setting)
    assert raised.value.message.startswith(f'token file "{str(tmp_path)[:50]}')


def test_the_folder_must_exist(tmp_path: Path) -> None:
    """A typing error in its path is not a folder to create."""
    with pytest.raises(ConfigError, match="its folder does not exist"):
        token_file(f"{tmp_path}/no/t", "a")


def test_a_null_character_is_not_part_of_a_path(tmp_path: Path) -> None:
    """A TOML file can contain one."""
    with pytest.raises(ConfigError, match="a path cannot contain a null character"):
        token_file(f"{tmp_path}/a\0b", "a")


def test_only_a_file_is_replaced(tmp_path: Path) -> None:
    """Neither a folder nor, as root could, a device; it is refused before anything is requested."""
    for path in (str(tmp_path), "/dev/null"):
        with pytest.raises(ConfigError, match="a folder or a device is in its place"):
            token_file(path, "a")


def test_a_list_of_files(tmp_path: Path) -> None:
    """Each table is a file."""
    file = tmp_path / "files.toml"
    file.write_text(
        f'[[agent.files]]\npath = "{tmp_path}/a"\naudience = "x"\n[[agent.files]]\npath = "{tmp_path}/b"\n'
    )
    assert [(row.path.name, row.audience) for row in read_files(file)] == [("a", "x"), ("b", "")]


@pytest.mark.parametrize(
    "text", ["[", "[[agent.files]]\npath = 1\n", "[agent]\nfile = []\n", "x = 1\n", "x = " + "[" * 5000]
)
def test_a_malformed_list_is_an_error(text: str, tmp_path: Path) -> None:
    """An unknown name too, which may be a typing error."""
    file = tmp_path / "files.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"files\.toml"):
        read_files(file)
    with pytest.raises(ConfigError, match="No such file"):
        read_files(tmp_path / "none")


def keeper_of(issuer: Issuer, path: Path) -> tuple[Keeper, list[bool], AsyncTokenSource]:
    """Return a keeper, what it reports, and its source."""
    renewed: list[bool] = []
    source = AsyncTokenSource("a", issuer=issuer)
    keeper = Keeper(TokenFile(path=path, audience="a"), source, on_renewal=lambda: renewed.append(True))
    return keeper, renewed, source


async def test_a_token_is_written_once(issuer: Issuer, tmp_path: Path) -> None:
    """Without a newline and for this user only; again when it is another one."""
    path = tmp_path / "t"
    keeper, renewed, source = keeper_of(issuer, path)
    await keeper.write()
    inode = path.stat().st_ino
    await keeper.write()
    assert (path.read_text(), path.stat().st_ino) == ("token-1", inode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    source.expedite()
    await keeper.write()
    assert path.read_text() == "token-2"
    assert (len(renewed), keeper.renewals, keeper.restored) == (2, 2, 0)
    assert list(tmp_path.iterdir()) == [path]


async def test_a_deleted_file_is_restored(issuer: Issuer, tmp_path: Path) -> None:
    """With the same token, which is not a renewal."""
    path = tmp_path / "t"
    keeper, renewed, _ = keeper_of(issuer, path)
    await keeper.write()
    path.unlink()
    await keeper.write()
    assert path.read_text() == "token-1"
    assert (len(renewed), keeper.restored) == (1, 1)


async def test_a_deleted_file_is_restored_while_the_issuer_does_not_answer(
    issuer: Issuer, tmp_path: Path
) -> None:
    """A request that hangs keeps no reader from the token that is still valid."""
    path = tmp_path / "t"
    keeper, _, source = keeper_of(issuer, path)
    await keeper.write()
    path.unlink()
    issuer.may_answer.clear()
    try:
        source.expedite()
        await keeper.write()
        assert path.read_text() == "token-1"
    finally:
        issuer.may_answer.set()
    await keeper.write()
    assert path.read_text() == "token-2"


@pytest.mark.parametrize("target", ["other", "none"])
async def test_a_link_that_replaces_the_file_is_replaced(issuer: Issuer, tmp_path: Path, target: str) -> None:
    """At once, not at the next renewal, whether or not its target exists, which is not touched."""
    path = tmp_path / "t"
    keeper, renewed, _ = keeper_of(issuer, path)
    await keeper.write()
    (tmp_path / "other").write_text("kept")
    path.unlink()
    path.symlink_to(tmp_path / target)
    await keeper.write()
    assert (path.is_symlink(), path.read_text()) == (False, "token-1")
    assert (tmp_path / "other").read_text() == "kept"
    assert not (tmp_path / "none").exists()
    assert (len(renewed), keeper.restored) == (1, 1)


async def test_a_link_is_replaced(issuer: Issuer, tmp_path: Path) -> None:
    """Its target keeps its content."""
    (tmp_path / "target").write_text("kept")
    (tmp_path / "t").symlink_to(tmp_path / "target")
    keeper, _, _ = keeper_of(issuer, tmp_path / "t")
    await keeper.write()
    assert not (tmp_path / "t").is_symlink()
    assert (tmp_path / "target").read_text() == "kept"


async def test_a_failure_makes_the_file_stale(issuer: Issuer, tmp_path: Path) -> None:
    """Whether there is no token, or it cannot be written; the keeper goes on."""
    folder = tmp_path / "folder"
    folder.mkdir()
    keeper, _, source = keeper_of(issuer, folder / "t")
    issuer.error = IssuerUnreachableError("away")
    keeping = asyncio.ensure_future(keeper.keep())
    await until_async(lambda: keeper.stale)
    issuer.error = None
    source.expedite()
    await until_async(lambda: not keeper.stale)
    assert (folder / "t").read_text().startswith("token-")
    (folder / "t").unlink()
    folder.rmdir()
    await until_async(lambda: keeper.stale)
    keeping.cancel()
