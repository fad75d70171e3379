"""Settings: one table of them all, and what a run makes of flags, variables and file.

The table (:mod:`tailbone.config.table`) knows each setting's flags, variable, path, kind, default and help;
command line, file reader, ``--help`` and the README's table are made from it. :func:`load` makes a
:class:`Config` of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tailbone.config.durations import format_duration, parse_duration
from tailbone.config.knobs import check_tailscale_environment
from tailbone.config.loading import load
from tailbone.config.markdown import settings_table_markdown
from tailbone.config.table import SETTINGS, Setting

if TYPE_CHECKING:
    from tailbone.config.model import (
        Admin,
        AdminClient,
        Config,
        Issuer,
        Key,
        Keys,
        Log,
        Server,
        Tailscale,
    )

__all__ = [
    "SETTINGS",
    "Admin",
    "AdminClient",
    "Config",
    "Issuer",
    "Key",
    "Keys",
    "Log",
    "Server",
    "Setting",
    "Tailscale",
    "check_tailscale_environment",
    "format_duration",
    "load",
    "parse_duration",
    "settings_table_markdown",
]


def __getattr__(name: str) -> object:
    """Import the structs when first asked for: msgspec costs 20 ms, and ``--help`` needs none of them."""
    if name in __all__:
        from tailbone.config import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
