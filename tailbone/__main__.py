"""The command ``tailbone``, also as ``python -m tailbone``."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line.

    Until something handles SIGINT it ends the process, as it ends any program: Python's own handler would
    show a traceback from the middle of an import.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tailbone.cli import tailbone

    tailbone.main()


if __name__ == "__main__":
    main()
