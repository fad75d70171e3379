"""Run tailbone as on a system without Unix modules and sockets, and without the native library.

``python -m harness.without_unix ARGUMENTS`` is ``tailbone ARGUMENTS`` on a Python that looks like Windows'.
"""

from __future__ import annotations

import asyncio  # noqa: F401 -- before its Unix parts are hidden, as are those of the next ones
import importlib.abc
import os
import signal
import socket
import subprocess  # noqa: F401
import sys
import tempfile  # noqa: F401
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

MODULES = frozenset({"fcntl", "grp", "pwd", "resource", "termios", "pty", "tailbone.tsnet._ffi"})
NAMES: dict[ModuleType, tuple[str, ...]] = {
    os: (
        "fork", "setsid", "killpg", "waitid", "pidfd_open", "geteuid", "getuid", "getegid", "getgid",
        "fchown", "fchmod", "chown", "O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "mkfifo",
        "getppid",
    ),
    socket: ("AF_UNIX", "SO_PEERCRED"),
    signal: ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGPIPE", "SIGXFSZ", "pthread_sigmask"),
    time: ("CLOCK_BOOTTIME", "clock_gettime"),
}  # fmt: skip


class _Missing(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def hide() -> None:
    """Hide what Windows does not have from all imports that follow."""
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Missing())
    for module, names in NAMES.items():
        for name in names:
            delattr(module, name)


if __name__ == "__main__":
    hide()
    from tailbone.__main__ import main

    main()
