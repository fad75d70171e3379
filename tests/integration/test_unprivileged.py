"""A server as in a container: another user, a read-only root, no HOME."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.programs import TAILBONE, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.tailnet import Caller, Tailnet

NOBODY = (65534, 65534)
OPENSHIFT = (1234567890, 0)
"""A user id that is unknown on the machine, in root's group."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """The only folder that the other user may write to, as in the Dockerfile's image."""
    with tempfile.TemporaryDirectory(prefix="tb") as name:
        Path(name).chmod(0o755)
        own = Path(name, "own")
        own.mkdir()
        own.chmod(0o770)
        if os.geteuid() == 0:
            os.chown(own, NOBODY[0], 0)
        yield own


def readable(path: Path) -> bool:
    """Return whether another user can read this path."""
    return all(parent.stat().st_mode & 0o005 == 0o005 for parent in (path, *path.parents) if parent.is_dir())


def wrapped(folder: Path, user: tuple[int, int] = NOBODY) -> list[str]:
    """Return the prefix of a command that runs as ``user`` on a read-only root, or skip the test."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None or shutil.which("unshare") is None:
        pytest.skip("needs root, setpriv and unshare")
    if not readable(Path(sys.executable)) or not readable(Path(__file__)):
        pytest.skip("another user cannot read this checkout or its Python")
    # Remounting the copy of / read-only does not affect the mounts below it.
    script = (
        f'set -e; mount --bind / /mnt; mount --bind "{folder}" "/mnt{folder}"; '
        "mount -o remount,bind,ro /mnt; "
        "for d in proc dev sys; do mount --rbind /$d /mnt/$d; done; "
        f'exec chroot /mnt setpriv --reuid {user[0]} --regid {user[1]} --clear-groups --no-new-privs "$@"'
    )
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    probe = f'! touch /tmp/x 2>/dev/null && ! touch /x 2>/dev/null && touch "{folder}/x"'
    tried = subprocess.run([*command, "sh", "-c", probe], check=False, capture_output=True)
    if tried.returncode != 0:
        pytest.skip(f"no mount namespace here: {tried.stderr.decode()}")
    return command


@pytest.mark.parametrize("user", [NOBODY, OPENSHIFT], ids=["nobody", "openshift"])
def test_read_only_root_without_home(
    tailnet: Tailnet, caller: Callable[..., Caller], folder: Path, user: tuple[int, int]
) -> None:
    """As another user without HOME, with one writable folder, it joins, issues tokens, and stops in order."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "TB_LOG_FORMAT": "json",
        "TB_KEYS_DIR": str(folder / "keys"),
        "TB_KEYS_BUCKET": (folder / "bucket").as_uri(),
        "TB_SERVER_TAILSCALE_DIR": str(folder / "node"),
        "TB_SERVER_TAILSCALE_HOSTNAME": f"contained-{user[0]}",
        "TB_SERVER_TAILSCALE_CONTROLURL": tailnet.control_url,
        "TB_SERVER_TAILSCALE_AUTHKEY": tailnet.key("tag:tailbone"),
    }
    with Program([*wrapped(folder, user), *TAILBONE, "server", "start"], env=environment) as program:
        program.wait_for('"event":"started"')
        route = caller().to(f"contained-{user[0]}")
        assert route.issue().status == 200
        assert json.loads(route.get("/_readyz").body)["ready"] is True
        status = Path(f"/proc/{program.pid}/status").read_text()
        assert f"Uid:\t{user[0]}\t{user[0]}" in status
        assert program.stop() == 0
    assert [path.name for path in folder.iterdir() if path.name.startswith("tailbone-")] == []


def test_dev_without_home(folder: Path) -> None:
    """dev runs as nobody without HOME, if only TMPDIR is writable."""
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(folder)}
    ask = ("sh", "-c", "curl -s -X POST $TAILBONE_ISSUE_URL")
    command = [*TAILBONE, "dev", "--listen", "127.0.0.1:0", "--", *ask]
    with Program([*wrapped(folder), *command], env=environment) as program:
        assert program.wait(30) == 0, program.output()
        assert json.loads("".join(program.out)).keys() == {"token", "expires_at"}
    assert [path.name for path in folder.iterdir()] == ["x"]
