"""``python -m tailbone``: the same as the command ``tailbone``."""

from __future__ import annotations

from tailbone.cli import main

if __name__ == "__main__":
    main()
