"""Settings: one table of them all, and what a run makes of flags, variables and file.

The table (:mod:`tailbone.config.table`) knows each setting's flags, variable, path, kind, default and help;
command line, file reader, ``--help`` and the README's table are made from it. :func:`load` makes a
:class:`Config` of it.

Names are imported when they are first asked for: ``tailbone --help`` needs the table alone, and msgspec with
the structs would cost it 25 ms.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tailbone.config.durations import format_duration, parse_duration
    from tailbone.config.knobs import check_tailscale_environment
    from tailbone.config.loading import load
    from tailbone.config.markdown import settings_table_markdown
    from tailbone.config.model import Admin, AdminClient, Config, Issuer, Key, Keys, Log, Server, Tailscale
    from tailbone.config.table import SETTINGS, Setting

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

_MODULES = {
    "SETTINGS": "table",
    "Setting": "table",
    "check_tailscale_environment": "knobs",
    "format_duration": "durations",
    "load": "loading",
    "parse_duration": "durations",
    "settings_table_markdown": "markdown",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'model')}"), name)
    globals()[name] = value
    return value
