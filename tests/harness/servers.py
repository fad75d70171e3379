"""A server on the private tailnet, in its own process."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.programs import Program
    from harness.tailnet import Tailnet

_numbers = itertools.count(1)


class Server:
    """``tailbone server start`` with a JSON log.

    Attributes:
        program: its process.
        name: the short name that it requested.
        folder: contains its keys in ``keys`` and its node's state in ``node``.
        authkey: the auth key it joined with.
        control_url: its tailnet's control server.
    """

    def __init__(self, program: Program, name: str, folder: Path, authkey: str, control_url: str) -> None:
        self.program = program
        self.name = name
        self.folder = folder
        self.authkey = authkey
        self.control_url = control_url

    def wait_until_serving(self) -> dict[str, Any]:
        """Wait for the log record that says that it serves, and return it."""
        self.program.wait_for('"event":"started"')
        record = self.program.event("started")
        assert record is not None
        return record

    @property
    def addresses(self) -> list[str]:
        """Its tailnet addresses, once it serves."""
        record = self.program.event("started")
        assert record is not None
        return list(record["addresses"])

    def events(self, text: str) -> list[dict[str, Any]]:
        """Return all log records with that event."""
        return [record for record in self.program.records() if record["event"] == text]


def start_server(
    tailnet: Tailnet,
    start: Callable[..., Program],
    folder: Path,
    *args: str,
    hostname: str = "",
    authkey: str | None = None,
    ready: bool = True,
    **variables: str,
) -> Server:
    """Start a server as a node of the tailnet.

    Args:
        tailnet: the tailnet to join.
        start: starts ``tailbone ARGS`` with variables.
        folder: keys and node state are put below it, into a folder named after the host.
        args: flags of ``server start``.
        hostname: by default a new name.
        authkey: by default a key of ``tag:tailbone``; empty for none.
        ready: whether to wait until it serves.
        variables: further variables of its environment.
    """
    name = hostname or f"server-{next(_numbers)}"
    key = tailnet.key("tag:tailbone") if authkey is None else authkey
    own = folder / name
    defaults = {
        "TB_LOG_FORMAT": "json",
        "TB_KEYS_DIR": str(own / "keys"),
        "TB_SERVER_TAILSCALE_DIR": str(own / "node"),
        "TB_SERVER_TAILSCALE_HOSTNAME": name,
        "TB_SERVER_TAILSCALE_CONTROLURL": tailnet.control_url,
        "TB_SERVER_TAILSCALE_AUTHKEY": key,
        # A test that waits asks again and again.
        "TB_SERVER_RATELIMIT": "0",
    }
    server = Server(
        start("server", "start", *args, **(defaults | variables)), name, own, key, tailnet.control_url
    )
    if ready:
        server.wait_until_serving()
    return server
