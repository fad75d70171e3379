"""Load one checked :class:`Config` from flags, variables, the settings file and defaults.

The first of these sources that sets a setting wins.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailbone.config import sources
from tailbone.config.checks import SecretInValueError
from tailbone.config.kinds import BadItemError, refuse_wrapping
from tailbone.config.table import BY_PATH, SETTINGS, Setting
from tailbone.errors import ConfigError
from tailbone.text import quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tailbone.config.model import Config


def load(
    flags: Mapping[str, str | Sequence[str]] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config_file: str | os.PathLike[str] | None = None,
    isolated: bool = False,
    again: bool = False,
) -> Config:
    """Load the settings of a run.

    Args:
        flags: setting paths (``server.port``) and the values of their flags; a sequence if a flag was
            repeated.
        environ: the environment; by default that of the process.
        config_file: the file of ``--config``; else ``TB_CONFIG``, else ``$HOME/.tailbone.toml``.
        isolated: for ``tailbone dev``, which must never touch production: read no settings file other than
            *config_file*, and take keys.bucket, keys.dir, keys.keyPath and server.tailscale.* from no
            variable, not even from tailscale's own.
        again: the settings were loaded before: refuse a file that can be read only once, such as a pipe.

    Raises:
        ConfigError: a setting is unknown, malformed or contradicts another; the message names it and its
            source, and says what is allowed. It never contains a secret value.
    """
    environ = os.environ if environ is None else environ
    flags = flags or {}
    notes = sources.unknown_variables(environ)
    file = _settings_file(environ, config_file, notes, isolated=isolated)
    if file and again and file.exists() and not file.is_file():
        raise ConfigError(f"{file}: the settings file cannot be read again: not a regular file")
    in_file = sources.read_file(file) if file else {}
    # Check overridden values too, so that removing a flag does not reveal an old mistake.
    from_file = {s.path: _checked(s, in_file[s.path], str(file)) for s in SETTINGS if s.path in in_file}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in SETTINGS:
        if setting.path in flags:
            value, origin = _checked(setting, *_flag(setting, flags[setting.path]))
        elif found := sources.variable_value(setting, (setting.variable,), environ, isolated=isolated):
            value, origin = _checked(setting, *found)
        elif setting.path in from_file:
            value, origin = from_file[setting.path]
        elif found := sources.variable_value(setting, setting.fallbacks, environ, isolated=isolated):
            value, origin = _checked(setting, *found)
        else:
            continue
        values[setting.path], origins[setting.path] = value, origin
    key = "server.tailscale.authkey"
    others = {f"{key}File", "server.tailscale.idTokenFile"} & values.keys()
    asks_cloud = values.get("server.tailscale.idTokenFrom", "file") != "file"
    if (others or asks_cloud) and origins.get(key, "").removeprefix("variable ") in BY_PATH[key].fallbacks:
        # Tailscale's own variables have the lowest precedence, so this is not a contradiction.
        del values[key], origins[key]
    return _build(values, origins, notes)


def _settings_file(
    environ: Mapping[str, str],
    config_file: str | os.PathLike[str] | None,
    notes: list[str],
    *,
    isolated: bool,
) -> Path | None:
    if config_file is not None:
        if not os.fspath(config_file):
            raise ConfigError("flag --config: the name of the settings file is empty")
        return Path(config_file)
    if isolated:
        return None
    if named := environ.get(sources.CONFIG_VARIABLE, ""):
        return Path(named)
    return sources.file_in_home(environ, notes)


def _flag(setting: Setting, given: str | Sequence[str]) -> tuple[str, str]:
    """Return the text of a flag, and its origin."""
    origin = f"flag {setting.flag}" if setting.flag else "flag"
    return given if isinstance(given, str) else ",".join(given), origin


def _checked(setting: Setting, value: object, origin: str) -> tuple[Any, str]:
    """Return the value of a setting, checked, and its origin."""
    try:
        if isinstance(value, str):
            refuse_wrapping(value, is_list=setting.kind.is_list)
        return setting.kind.convert(value), origin
    except ValueError as error:
        raise _bad_value(setting, origin, value, error) from None


def _bad_value(setting: Setting, origin: str, value: object, error: ValueError) -> ConfigError:
    item = error.item if isinstance(error, BadItemError) else value
    shown = "its value" if setting.secret or isinstance(error, SecretInValueError) else _shown(item)
    message = f"{setting.path} ({origin}): {shown} {error}; allowed: {setting.kind.allowed}"
    if setting.kind.choices and isinstance(item, str) and not setting.secret:
        message += _nearest_choice(item, setting.kind.choices)
    if isinstance(value, str) and value.startswith("tcp://") and origin == f"variable {setting.variable}":
        message += "; Kubernetes sets such variables for services: set enableServiceLinks: false in the pod"
    return ConfigError(message)


def _shown(value: object) -> str:
    if isinstance(value, (list, dict)):
        return "its value"
    return quote(value) if isinstance(value, str) else str(value).lower()


def _nearest_choice(word: str, choices: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word.strip().lower(), [choice.lower() for choice in choices], n=1)
    by_lower = {choice.lower(): choice for choice in choices}
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


def _build(values: Mapping[str, Any], origins: dict[str, str], notes: list[str]) -> Config:
    import msgspec

    from tailbone.config.model import Config, check_together

    tree: dict[str, Any] = {"origins": origins, "notes": tuple(notes)}
    for path, value in values.items():
        *tables, name = BY_PATH[path].attributes
        branch = tree
        for table in tables:
            branch = branch.setdefault(table, {})
        branch[name] = value
    config = msgspec.convert(tree, Config)
    check_together(config)
    return config
