"""Checks of the folders with a server's state."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tailbone.daemon.node_folder import check_node_folder, volatile_folders
from tailbone.errors import TailnetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node's folder as tsnet makes it."""
    folder = tmp_path / "node"
    folder.mkdir(0o700)
    (folder / "tailscaled.state").touch(0o600)
    return folder


def test_a_folder_as_tsnet_makes_it(node: Path) -> None:
    """It has no warnings, nor has a folder that does not exist yet."""
    assert check_node_folder(node) == []
    assert check_node_folder(node / "none") == []


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o703])
def test_a_folder_that_everybody_can_write_to_is_refused(node: Path, mode: int) -> None:
    """Every user could replace the node's state."""
    node.chmod(mode)
    with pytest.raises(TailnetError) as failure:
        check_node_folder(node)
    assert failure.value.message == (
        f"everybody can write to the node's folder {node}: run  chmod o-w {node}, "
        "or name a folder inside it (--ts-dir)"
    )


@pytest.mark.parametrize("mode", [0o644, 0o602])
def test_state_that_everybody_can_read_or_write_is_refused(node: Path, mode: int) -> None:
    """With a copy of it, another program could be this node."""
    state = node / "tailscaled.state"
    state.chmod(mode)
    with pytest.raises(TailnetError, match=f"the node's state {state}: run  chmod 600 {state}"):
        check_node_folder(node)


def test_the_groups_access_is_a_warning(node: Path) -> None:
    """Kubernetes' fsGroup gives the group access."""
    node.chmod(0o770)
    assert check_node_folder(node) == [f"the group can write to the node's folder {node}"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_users_folder_is_a_warning(node: Path) -> None:
    """Root may use a user's folder, but its owner can change it."""
    os.chown(node, 1000, -1)
    os.chown(node / "tailscaled.state", 1001, -1)
    assert check_node_folder(node) == [
        f"user 1000 can write to the node's folder {node}",
        f"user 1001 can read or write the node's state {node / 'tailscaled.state'}",
    ]


@pytest.fixture
def stranger() -> Iterator[int]:
    """Act as a user who owns nothing; gives the user's id."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    os.setresuid(12345, 12345, 0)
    yield 12345
    os.setresuid(0, 0, 0)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user can enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_another_users_state_is_refused(shared: Path, stranger: int) -> None:
    """The message has this user's id and the command that helps."""
    os.setresuid(0, 0, 0)
    (shared / "tailscaled.state").touch(0o600)
    shared.chmod(0o777)
    os.setresuid(stranger, stranger, 0)
    with pytest.raises(TailnetError) as failure:
        check_node_folder(shared)
    assert failure.value.message == (
        "the node's state cannot be read and written; this process is user 12345: "
        f"run  chown -R 12345 {shared / 'tailscaled.state'}"
    )


def test_a_folder_that_cannot_be_created(shared: Path, stranger: int) -> None:
    """The message says how to create it for this user."""
    with pytest.raises(TailnetError) as failure:
        check_node_folder(shared / "node")
    assert failure.value.message == (
        "the node's state cannot be read and written; this process is user 12345: "
        f"run  mkdir -p {shared}/node && chown -R 12345 {shared}/node"
    )


@pytest.fixture
def mounted(tmp_path: Path) -> Callable[[str], str]:
    """A line of mountinfo (proc(5)) of the file system that ``tmp_path`` is on, with another type."""
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"

    def line(kind: str) -> str:
        other = "21 27 0:999 / /sys rw shared:7 - sysfs sysfs rw"
        return f"{other}\n22 27 {number} / / rw,relatime shared:8 master:1 - {kind} none rw\n"

    return line


@pytest.mark.parametrize(
    ("kind", "passes"),
    [("overlay", True), ("tmpfs", True), ("ramfs", True), ("ext4", False), ("nfs4", False), ("9p", False)],
)
def test_folders_that_end_with_the_container(
    tmp_path: Path, mounted: Callable[[str], str], kind: str, passes: bool
) -> None:
    """These are on the container's own file system or in memory, even if they do not exist yet."""
    folders = [tmp_path, tmp_path / "later" / "keys"]
    assert volatile_folders(folders, mounted(kind)) == (folders if passes else [])


def test_a_file_system_that_is_not_listed(tmp_path: Path) -> None:
    """It counts as persistent, as btrfs does, whose device numbers differ from mountinfo's."""
    assert volatile_folders([tmp_path], "21 27 0:999 / /sys rw - sysfs sysfs rw\n") == []
