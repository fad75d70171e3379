"""The unit deploy/tailbone.service is valid and confined, and the server runs under what it forbids."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tailbone.config.load import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.containers import Running
    from harness.tailnet import Caller

UNIT = Path(__file__).parents[2] / "deploy" / "tailbone.service"
TAILBONE = "/opt/tailbone/bin/tailbone"
MOST_EXPOSURE = "1.5"
"""What systemd calls OK is below 5."""

FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
PROT_WRITE, PROT_EXEC = 2, 4


def analyze(*arguments: str) -> str:
    """Run systemd-analyze, and return its output."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd; .ci/run installs it")
    done = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with the program of this environment."""
    text = UNIT.read_text()
    assert f"ExecStart={TAILBONE} server start " in text
    file = tmp_path / UNIT.name
    file.write_text(text.replace(TAILBONE, str(Path(sys.executable).parent / "tailbone")))
    return file


def values(name: str) -> list[str]:
    """Return the values of a line of the unit."""
    return [line.partition("=")[2] for line in UNIT.read_text().splitlines() if line.startswith(f"{name}=")]


def test_it_is_valid(unit: Path) -> None:
    """systemd has nothing to say about it."""
    assert analyze("verify", str(unit)) == ""


def test_it_is_confined(unit: Path) -> None:
    """Its exposure is at most 1.5 of 10."""
    tenths = str(int(float(MOST_EXPOSURE) * 10))
    analyze("security", "--offline=true", "--no-pager", f"--threshold={tenths}", str(unit))


def members(group: str) -> Iterable[str]:
    """Return the system calls of one of systemd's groups."""
    for line in analyze("syscall-filter", group).splitlines()[1:]:
        name = line.strip()
        if name.startswith("@"):
            yield from members(name)
        elif name and not name.startswith("#"):
            yield name


def seccomp_profile() -> dict[str, Any]:
    """Return what the unit says about system calls, memory and address families, for a container."""
    allowed: set[str] = set()
    for group in values("SystemCallFilter"):
        if group.startswith("~"):
            allowed -= set(members(group[1:]))
        else:
            allowed |= set(members(group))
    conditional: dict[str, list[dict[str, Any]]] = defaultdict(list)
    assert values("MemoryDenyWriteExecute") == ["yes"]
    for bits in (0, PROT_WRITE, PROT_EXEC):
        conditional["mmap"].append(masked(2, PROT_WRITE | PROT_EXEC, bits))
    conditional["mprotect"].append(masked(2, PROT_EXEC, 0))
    for family in " ".join(values("RestrictAddressFamilies")).split():
        conditional["socket"].append({"index": 0, "value": FAMILIES[family], "op": "SCMP_CMP_EQ"})
    rules: list[dict[str, Any]] = [
        {"names": sorted(allowed - conditional.keys()), "action": "SCMP_ACT_ALLOW"}
    ]
    for name, arguments in conditional.items():
        rules += [{"names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument]} for argument in arguments]
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}


def masked(index: int, mask: int, value: int) -> dict[str, Any]:
    """Return the condition that some bits of an argument have these values."""
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def test_the_server_runs_under_its_filter(
    serve: Callable[..., Running], caller: Callable[..., Caller], volume: str, tmp_path: Path
) -> None:
    """Under the same filter of system calls, in a container, it issues a token and stops in order."""
    profile = tmp_path / "seccomp.json"
    profile.write_text(json.dumps(seccomp_profile()))
    server = serve(f"--security-opt=seccomp={profile}", f"--volume={volume}:/var/lib/tailbone")
    assert caller().to(server.name).issue().status == 200
    assert server.stop() == 0


def test_its_variables_are_settings() -> None:
    """tailbone accepts each variable; the auth key is the credential that systemd loads."""
    variables = dict(line.split("=", 1) for line in values("Environment"))
    config = load(environ=variables)
    assert config.notes == ()
    [credential] = values("LoadCredential")
    assert config.server.tailscale.authkey_file == f"%d/{credential.partition(':')[0]}"
