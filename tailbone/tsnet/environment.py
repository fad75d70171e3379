"""Checks, before the native library is loaded, that a node can run in this process's environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from tailbone.config.table import SETTINGS
from tailbone.errors import ConfigError, TailnetError

_LIBRARY: Final = Path(__file__).with_name("libtsnet.so")
# Loading returns before Go has initialised its packages; the call waits until it has.
_LOAD: Final = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).tb_free(None)"
_TEXTS: Final = frozenset(name for setting in SETTINGS for name in setting.fallbacks)


def check_environment() -> None:
    """Refuse an environment in which no node can run.

    Raises:
        TailnetError: this process may not open netlink sockets.
        ConfigError: a variable cannot be parsed; tailscale's message names it.
    """
    _check_netlink()
    _check_switches()


def _check_netlink() -> None:
    """Open a netlink socket, which Go needs to list the network's interfaces."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC).close()
    except OSError as error:
        raise TailnetError(
            f"this process cannot open AF_NETLINK sockets ({error.strerror}), which its node needs; "
            "allow them (systemd: add AF_NETLINK to RestrictAddressFamilies=)"
        ) from error


def _check_switches() -> None:
    """Refuse variables that tailscale cannot parse.

    tailscale's ``envknob`` parses its switches when the library is loaded, and ends the whole process over a
    bad one. Which variables these are changes with each version, so a child process loads the library first.
    It is started only if a variable of tailscale's is set that is not one of tailbone's own fallbacks.
    """
    switches = {name for name in os.environ if name.startswith(("TS_", "TSNET_"))} - _TEXTS
    if not switches:
        return
    command = [sys.executable, "-I", "-c", _LOAD, str(_LIBRARY)]
    child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    refusals = [line for line in child.stderr.splitlines() if " environment variable " in line]
    if child.returncode and refusals:
        # Go's log line begins with date and time.
        raise ConfigError(f"tailscale refuses a setting: {refusals[-1].split(' ', 2)[2]}")
