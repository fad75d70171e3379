"""The command ``tailbone``, also as ``python -m tailbone``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    """Run the command line.

    Until the command handles SIGINT, the signal has its default action, since Python's handler would print a
    traceback from the middle of an import.
    """
    _open_standard_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tailbone.cli import tailbone

    try:
        tailbone.main()
    finally:
        _discard_output()


def _open_standard_streams() -> None:
    """Open the null device for each standard stream that is closed.

    Otherwise the next file to be opened would get the stream's number, and a print would write into that
    file. The event loop also refuses descriptors with these numbers.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # open(2) returns the lowest free number, which is this one. The command of `dev` inherits it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _discard_output() -> None:
    """Discard unwritten standard output: Python would retry at exit and report the failure."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
