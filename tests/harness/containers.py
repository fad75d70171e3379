"""Containers of the project's image, which podman builds and runs as a user would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.programs import Program, clean_environment
from tests.bench.toolchain import go_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
BASE = "localhost/tailbone-base"
"""The image that ``.ci/run`` makes from Debian's packages, so that the tests need no registry of images."""

IMAGE = "localhost/tailbone-under-test"

HARDENED = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges")

LIMITS = {"nofile": 4096, "nproc": 4096}
"""Limits of every container: by default podman raises them, which a sandbox forbids."""

_LIMIT_FLAGS = tuple(f"--ulimit={name}={limit}:{limit}" for name, limit in LIMITS.items())
_HOME = "/root"
"""Of the user in the Dockerfile's stages."""

_CLIENT_SETTINGS = ("/etc/ssl/certs", "/etc/pip.conf")
"""What the host's package clients are set up with."""


def missing() -> str:
    """Return why no container can be run here; empty if one can."""
    if shutil.which("podman") is None:
        return "there is no podman; .ci/run installs it"
    if subprocess.run(["podman", "image", "exists", BASE], check=False, capture_output=True).returncode != 0:
        return f"there is no image {BASE}; .ci/run makes it"
    return ""


def podman(*arguments: str, timeout_s: float = 60.0) -> str:
    """Run podman to its end, and return its standard output.

    Raises:
        AssertionError: it failed; the message contains its output.
    """
    done = subprocess.run(
        ["podman", *arguments], capture_output=True, text=True, check=False, timeout=timeout_s
    )
    assert done.returncode == 0, f"podman {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_image() -> None:
    """Build the project's Dockerfile, with Go's caches of this machine."""
    command = [go_command(), "env", "-json", "GOCACHE", "GOMODCACHE"]
    caches = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    volumes = [f"--volume={path}:{path}:ro" for path in _CLIENT_SETTINGS if os.path.lexists(path)]
    volumes += [f"--volume={caches['GOCACHE']}:{_HOME}/.cache/go-build"]
    volumes += [f"--volume={caches['GOMODCACHE']}:{_HOME}/go/pkg/mod"]
    podman(
        "build",
        # Otherwise the image has no HEALTHCHECK.
        "--format=docker",
        "--pull=never",
        "--network=host",
        f"--build-arg=BASE={BASE}",
        f"--tag={IMAGE}",
        *_LIMIT_FLAGS,
        *volumes,
        str(ROOT),
        timeout_s=1500.0,
    )


def container(
    folder: Path, *arguments: str, flags: Sequence[str] = HARDENED, variables: Mapping[str, str] | None = None
) -> Program:
    """Run the image in the foreground: ``container(folder, "keys", "list")``.

    Args:
        folder: of this run, on this machine.
        arguments: of the image; none for its own command.
        flags: of ``podman run``.
        variables: of the container's environment.
    """
    given = [f"--env={name}={value}" for name, value in (variables or {}).items()]
    command = [
        "podman",
        "run",
        "--rm",
        "--network=host",
        *_LIMIT_FLAGS,
        *flags,
        *given,
        IMAGE,
        *arguments,
    ]
    return Program(command, env=clean_environment(folder))


class Running:
    """A server in a container.

    Attributes:
        name: of the container, and of the node.
        program: podman in the foreground, with the server's log.
    """

    def __init__(self, name: str, program: Program) -> None:
        self.name = name
        self.program = program

    def events(self, text: str) -> list[dict[str, Any]]:
        """Return all log records with that event."""
        return [record for record in self.program.records() if record["event"] == text]

    def stop(self) -> int:
        """Stop the container as `docker stop` does, and return its exit code."""
        podman("stop", "--time=10", self.name)
        return self.program.wait()


def messages(program: Program) -> list[str]:
    """Return what a container wrote to standard error, without the log of podman.

    Where there is no systemd, podman logs that it cannot run the health check by itself.
    """
    return [line for line in program.err if not line.startswith('time="')]


def inspect(what: str, name: str) -> Any:
    """Return what podman knows of an image or a container."""
    return json.loads(podman(what, "inspect", name))[0]
