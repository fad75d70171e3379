"""The key folder: what can lie in it, and what is made of it."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.keys import START, Server

from tailbone.errors import KeyFileError, KeyStateError
from tailbone.keys import folder as folder_module
from tailbone.keys.folder import PRIVATE_SUFFIX, KeyFolder, Snapshot
from tailbone.keys.record import KeyRecord, Origin
from tailbone.keys.signing_key import SigningKey

if TYPE_CHECKING:
    from collections.abc import Callable

KID = f"tb-{START:.0f}"


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate(KID, algorithm="ES256", size=0, created_at=START)


@pytest.fixture
def folder(tmp_path: Path, key: SigningKey) -> KeyFolder:
    """A folder with one good pair."""
    made = KeyFolder(tmp_path / "keys")
    made.prepare()
    made.add(key, KeyRecord.new(key.thumbprint, "first", now=START))
    return made


def fault(folder: KeyFolder, kid: str = KID) -> str:
    entry = folder.scan().entries[kid]
    assert (entry.key is None) == bool(entry.fault)
    return entry.fault


def test_what_was_added_is_found(folder: KeyFolder, key: SigningKey) -> None:
    """Key and state, under the kid."""
    entry = folder.scan().entries[KID]
    assert entry.key is not None
    assert (entry.key.kid, entry.key.thumbprint, entry.fault) == (KID, key.thumbprint, "")
    assert entry.record == KeyRecord.new(key.thumbprint, "first", now=START)


def test_a_folder_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    """And looking at it does not make it."""
    assert KeyFolder(tmp_path / "none").scan() == Snapshot()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("suffix", ["private.jwk", "public.jwk", "state.json"])
@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"\xff\xfe", lambda data: b"[1]"],
)
def test_a_damaged_file_is_a_fault_of_its_key_only(
    folder: KeyFolder, suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    """Empty, cut short, no text, no object: named, and left as it is."""
    other = SigningKey.generate("tb-1795518231", algorithm="ES256", size=0, created_at=START)
    folder.add(other, KeyRecord.new(other.thumbprint, "next", now=START))
    path = folder.path / f"{KID}.{suffix}"
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    assert fault(folder)
    assert fault(folder, "tb-1795518231") == ""
    assert path.read_bytes() == before


def test_two_halves_of_different_keys_are_a_fault(folder: KeyFolder) -> None:
    """Which of them is meant nobody can tell."""
    other = SigningKey.generate(KID, algorithm="ES256", size=0, created_at=START)
    (folder.path / f"{KID}.public.jwk").write_text(json.dumps(other.public_jwk()))
    assert fault(folder) == "the two halves belong to different keys"


def test_a_private_half_under_another_name_is_a_fault(folder: KeyFolder) -> None:
    """The kid inside is what tokens would carry."""
    for suffix in ("private.jwk", "public.jwk"):
        (folder.path / f"{KID}.{suffix}").rename(folder.path / f"other.{suffix}")
    assert fault(folder, "other") == "the kid in the private key file does not match the file name"


def test_a_state_for_another_key_counts_for_nothing(folder: KeyFolder) -> None:
    """The pair was replaced by hand: nothing is known of the new one."""
    other = SigningKey.generate(KID, algorithm="ES256", size=0, created_at=START)
    (folder.path / f"{KID}.private.jwk").write_bytes(other.private_jwk())
    (folder.path / f"{KID}.public.jwk").write_text(json.dumps(other.public_jwk()))
    entry = folder.scan().entries[KID]
    assert entry.key is not None
    assert entry.record is None


def test_a_public_half_that_a_kill_kept_from_being_written_is_no_fault(folder: KeyFolder) -> None:
    """The state says that the pair is ours: the missing half follows from the other."""
    (folder.path / f"{KID}.public.jwk").unlink()
    entry = folder.scan().entries[KID]
    assert (entry.fault, entry.public_missing) == ("", True)


def test_without_a_state_a_missing_public_half_is_a_fault(folder: KeyFolder) -> None:
    """Somebody may be copying the pair just now."""
    (folder.path / f"{KID}.public.jwk").unlink()
    (folder.path / f"{KID}.state.json").unlink()
    assert fault(folder) == "the public half is missing"


def test_a_missing_private_half_is_a_fault(folder: KeyFolder) -> None:
    """The public half alone signs nothing."""
    (folder.path / f"{KID}.private.jwk").unlink()
    assert fault(folder) == "the private half is missing"


@pytest.mark.parametrize(("mode", "can"), [(0o644, "read"), (0o602, "write"), (0o606, "read")])
def test_a_private_half_open_to_everybody_is_refused(folder: KeyFolder, mode: int, can: str) -> None:
    """With the command that fixes it, quoted for a shell."""
    path = folder.path / f"{KID}.private.jwk"
    path.chmod(mode)
    entry = folder.scan().entries[KID]
    assert entry.fault == f"the private half is refused: everybody can {can} it; run  chmod 600 {path}"
    assert entry.unsafe
    path.chmod(0o600)
    assert fault(folder) == ""


def test_a_pipe_or_a_folder_under_a_keys_name_makes_nobody_wait(folder: KeyFolder) -> None:
    """Only regular files are read."""
    os.mkfifo(folder.path / "pipe.private.jwk")
    (folder.path / "dir.private.jwk").mkdir()
    assert fault(folder, "pipe") == "the private half is not a regular file"
    assert fault(folder, "dir").startswith("the private half")


def test_a_link_to_a_file_elsewhere_is_read(folder: KeyFolder, tmp_path: Path) -> None:
    """Kubernetes mounts secrets so."""
    path = folder.path / f"{KID}.private.jwk"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert fault(folder) == ""


def test_a_link_to_nowhere_is_a_fault(folder: KeyFolder) -> None:
    """It is named, not stumbled over."""
    (folder.path / "lost.private.jwk").symlink_to(folder.path / "nowhere")
    assert fault(folder, "lost") == "the private half cannot be read: No such file or directory"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_key_is_a_fault() -> None:
    """It has this user's id and the command that helps."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        path = Path(name, f"{KID}.private.jwk")
        path.touch(0o600)
        os.setresuid(12345, 12345, 0)
        try:
            found = fault(KeyFolder(Path(name)))
        finally:
            os.setresuid(0, 0, 0)
    assert found == (
        "the private half cannot be read: Permission denied; "
        f"this process is user 12345: run  chown -R 12345 {path}"
    )


def test_a_huge_file_is_not_read(folder: KeyFolder) -> None:
    """No key is that long."""
    (folder.path / f"{KID}.private.jwk").write_bytes(b" " * 100_000)
    assert fault(folder) == "the private half is longer than 65536 bytes"


def test_a_name_that_is_no_text_can_be_printed(folder: KeyFolder) -> None:
    """A kid with half a character could not be printed in a list."""
    (folder.path / os.fsdecode(b"bad\xff.private.jwk")).write_bytes(b"{}")
    assert "bad\ufffd" in "".join(folder.scan().entries)


def test_names_of_other_kinds_are_left_alone(folder: KeyFolder) -> None:
    """Temporary files, the lock, a README."""
    for name in ("README", ".x.private.jwk.0123.tmp", "x.jwk", "removed"):
        (folder.path / name).touch()
    assert list(folder.scan().entries) == [KID]


def test_no_kid_ever_replaces_anothers_files(folder: KeyFolder, key: SigningKey) -> None:
    """Not even when somebody put it there since the last look."""
    before = (folder.path / f"{KID}.private.jwk").read_bytes()
    with pytest.raises(KeyStateError):
        folder.add(key, KeyRecord.new(key.thumbprint, Origin.REQUESTED, now=START))
    assert (folder.path / f"{KID}.private.jwk").read_bytes() == before


def test_a_change_is_noticed_by_a_look_and_parsed_once(
    folder: KeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that did not change is not parsed again."""
    parsed: list[bytes] = []
    from_jwk = SigningKey.from_jwk

    def counted(data: bytes, *, fallback_created_at: float) -> SigningKey:
        parsed.append(data)
        return from_jwk(data, fallback_created_at=fallback_created_at)

    monkeypatch.setattr(SigningKey, "from_jwk", counted)
    folder.scan()
    assert not folder.changed()
    folder.scan()
    assert len(parsed) == 1
    os.utime(folder.path / f"{KID}.private.jwk", (1, 1))
    assert folder.changed()
    folder.scan()
    assert len(parsed) == 2


def test_a_folder_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """A file is in its place."""
    (tmp_path / "keys").touch()
    with pytest.raises(KeyFileError, match="cannot write to the key folder"):
        KeyFolder(tmp_path / "keys").prepare()


def test_a_kid_moved_twice_to_removed_keeps_both(folder: KeyFolder, key: SigningKey) -> None:
    """Nothing there is ever replaced."""
    folder.move_to_removed(folder.scan().entries[KID])
    folder.add(key, KeyRecord.new(key.thumbprint, Origin.REQUESTED, now=START))
    folder.move_to_removed(folder.scan().entries[KID])
    assert len(list((folder.path / "removed").iterdir())) == 6


def test_no_private_member_shows_in_a_repr_or_an_error(folder: KeyFolder, key: SigningKey) -> None:
    """Of the key, of the entry, of a fault."""
    secret = json.loads(key.private_jwk())["d"]
    path = folder.path / f"{KID}.private.jwk"
    shown = repr(folder.scan()) + repr(key)
    path.write_bytes(path.read_bytes()[:-20])
    shown += repr(folder.scan())
    assert secret not in shown


async def test_the_last_good_copy_of_another_place_or_a_damaged_one_is_left_out(
    server: Callable[..., Server],
) -> None:
    """The folder's own keys are served instead."""
    one = await server().start()
    (one.folder / ".last-published.json").write_bytes(b'{"place":')
    again = one.again()
    await again.keys.start()
    assert [key["kid"] for key in json.loads(again.keys.published_document())["keys"]] == [one.signing]


def test_a_kept_copy_that_is_no_regular_file_counts_as_damaged(folder: KeyFolder) -> None:
    """A start must not wait for a pipe, nor read a device until the memory is full."""
    path = folder.path / ".last-published.json"
    path.symlink_to("/dev/zero")
    with pytest.raises(KeyFileError, match="is damaged"):
        folder.read_saved_copy("here")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(KeyFileError, match="is damaged"):
        folder.read_saved_copy("here")


def test_a_key_that_was_read_goes_on_while_its_file_cannot_be_read(
    folder: KeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A passing error of the disk costs no key, and the next look reads the file again."""
    folder.scan()
    os.utime(folder.path / f"{KID}{PRIVATE_SUFFIX}")

    def fail(*_: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as broken:
        broken.setattr(folder_module, "read_regular", fail)
        assert fault(folder) == ""
    assert folder.changed() is True
    assert fault(folder) == ""
    assert folder.changed() is False
