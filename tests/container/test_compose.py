"""The Compose file runs the image as a user would, here by podman-compose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from harness.containers import LIMITS, inspect, podman
from harness.programs import clean_environment
from harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.tailnet import Caller, Tailnet

FILE = Path(__file__).parents[2] / "deploy" / "compose.yaml"
PROJECT = "tailbone-compose-test"
"""Also the name of the node."""

CONTAINER = f"{PROJECT}_tailbone_1"


def test_it_serves(
    image: str, tailnet: Tailnet, caller: Callable[..., Caller], bucket: dict[str, str], tmp_path: Path
) -> None:
    """Hardened and with a volume, it joins, publishes and issues; `down` and `up` keep the node."""
    variables = clean_environment(
        tmp_path,
        TB_KEYS_BUCKET=bucket["TB_KEYS_BUCKET"],
        TB_SERVER_TAILSCALE_AUTHKEY=tailnet.key("tag:tailbone"),
    )
    # The image is already built, and the tailnet and the bucket are on the loopback of the host.
    own = tmp_path / "own.yaml"
    settings = bucket | {
        "TB_SERVER_TAILSCALE_CONTROLURL": tailnet.control_url,
        "TB_SERVER_TAILSCALE_HOSTNAME": PROJECT,
        "TB_KEYS_KEYPATH": "compose/jwks.json",
    }
    service = {"image": image, "network_mode": "host", "environment": settings, "ulimits": LIMITS}
    own.write_text(yaml.safe_dump({"services": {"tailbone": service}}))

    def compose(*arguments: str) -> None:
        command = [sys.executable, "-m", "podman_compose", "-p", PROJECT, "-f", str(FILE), "-f", str(own)]
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=False, env=variables, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def serves() -> bool:
        log = podman("logs", CONTAINER)
        return '"event":"signing key changed"' in log and '"event":"started"' in log

    try:
        compose("up", "--no-build", "--detach")
        until(serves, "it serves", timeout_s=60)
        assert inspect("container", CONTAINER)["HostConfig"]["ReadonlyRootfs"] is True
        assert inspect("container", CONTAINER)["EffectiveCaps"] in (None, [])
        assert caller().to(PROJECT).issue().status == 200
        node = tailnet.known(PROJECT)["stable_id"]
        compose("down")
        variables["TB_SERVER_TAILSCALE_AUTHKEY"] = ""
        compose("up", "--no-build", "--detach")
        until(serves, "it serves again", timeout_s=60)
        assert caller().to(PROJECT).issue().status == 200
        assert tailnet.known(PROJECT)["stable_id"] == node
    finally:
        compose("down", "--volumes")
