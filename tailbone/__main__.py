"""The command ``tailbone``, also as ``python -m tailbone``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    """Run the command line.

    Until something handles SIGINT it ends the process, as it ends any program: Python's own handler would
    show a traceback from the middle of an import.
    """
    _open_standard_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tailbone.cli import tailbone

    try:
        tailbone.main()
    finally:
        _let_go_of_output()


def _open_standard_streams() -> None:
    """Open the null device for each standard stream that is closed.

    The event loop refuses to run on a descriptor of such a number, and whatever is opened next would have it:
    a print would write into a database.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one; a command of dev's is to have it, too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _let_go_of_output() -> None:
    """Let what standard output did not take go nowhere: Python would try again at its end, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
