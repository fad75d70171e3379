"""From flags, variables, file and defaults to one checked :class:`Config`.

The first of them that sets a setting wins.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailbone.config import sources
from tailbone.config.kinds import BadItemError, SecretInValueError
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
) -> Config:
    """Make the settings of a run.

    Args:
        flags: setting paths (``server.port``) and what was written behind their flags; a sequence where
            one was repeated.
        environ: the environment; the process's own by default.
        config_file: the file of ``--config``; else ``TB_CONFIG``, else ``$HOME/.tailbone.toml``.
        isolated: for ``tailbone dev``, which must never touch production: no settings file but
            *config_file*; and keys.bucket, keys.dir, keys.keyPath and server.tailscale.* come from no
            variable, tailscale's own neither.

    Raises:
        ConfigError: a setting is unknown, malformed or contradicts another; the message names it and its
            source, and says what is allowed. A secret value is never in it.
    """
    environ = os.environ if environ is None else environ
    flags = flags or {}
    notes = sources.unknown_variables(environ)
    file, in_file = _read_settings_file(environ, config_file, notes, isolated=isolated)
    # Also what is overridden now: who takes the flag away does not meet an old mistake.
    from_file = {s.path: _from_file(s, in_file[s.path], file) for s in SETTINGS if s.path in in_file}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in SETTINGS:
        if setting.path in flags:
            value, origin = _from_flag(setting, flags[setting.path])
        elif found := sources.variable_value(setting, environ, isolated=isolated):
            value, origin = _from_variable(setting, *found)
        elif setting.path in from_file:
            value, origin = from_file[setting.path]
        elif found := sources.fallback_value(setting, environ, isolated=isolated):
            value, origin = _from_variable(setting, *found)
        else:
            continue
        values[setting.path], origins[setting.path] = value, origin
    _check_together(values, origins)
    return _build(values, origins, notes)


def _read_settings_file(
    environ: Mapping[str, str],
    config_file: str | os.PathLike[str] | None,
    notes: list[str],
    *,
    isolated: bool,
) -> tuple[Path, dict[str, Any]]:
    path: Path | None
    if config_file is not None:
        if not os.fspath(config_file):
            raise ConfigError("flag --config: the name of the settings file is empty")
        path = Path(config_file)
    elif isolated:
        path = None
    elif named := environ.get(sources.CONFIG_VARIABLE, ""):
        path = Path(named)
    else:
        path = sources.file_in_home(environ, notes)
    return (path, sources.read_file(path)) if path else (Path(), {})


def _from_flag(setting: Setting, given: str | Sequence[str]) -> tuple[Any, str]:
    origin = f"flag {setting.flag}" if setting.flag else "flag"
    text = given if isinstance(given, str) else ",".join(given)
    try:
        return setting.kind.parse(text), origin
    except ValueError as error:
        raise _bad_value(setting, origin, text, error) from None


def _from_variable(setting: Setting, text: str, variable: str) -> tuple[Any, str]:
    origin = f"variable {variable}"
    try:
        return setting.kind.parse(text), origin
    except ValueError as error:
        raise _bad_value(setting, origin, text, error) from None


def _from_file(setting: Setting, value: object, file: Path) -> tuple[Any, str]:
    origin = str(file)
    try:
        return setting.kind.from_toml(value), origin
    except ValueError as error:
        raise _bad_value(setting, origin, value, error) from None


def _bad_value(setting: Setting, origin: str, value: object, error: ValueError) -> ConfigError:
    item = error.item if isinstance(error, BadItemError) else value
    shown = "its value" if setting.secret or isinstance(error, SecretInValueError) else _shown(item)
    message = f"{setting.path} ({origin}): {shown} {error}; allowed: {setting.kind.allowed}"
    if setting.kind.choices and isinstance(item, str) and not setting.secret:
        message += _nearest_choice(item, setting.kind.choices)
    if isinstance(value, str) and value.startswith("tcp://") and origin == f"variable {setting.variable}":
        message += "; Kubernetes makes such variables for services: set enableServiceLinks: false in the pod"
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


def _check_together(values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Refuse settings that are right alone and wrong together."""
    rotate_s = values.get("keys.rotateEvery", 0.0)
    if not rotate_s:
        return
    path = "keys.activateAfter" if values.get("keys.activateAfter") is not None else "keys.maxAge"
    wait_s = values.get(path, BY_PATH[path].default)
    if rotate_s < wait_s:
        duration = BY_PATH[path].kind.show
        raise ConfigError(
            f"keys.rotateEvery ({origins['keys.rotateEvery']}): {duration(rotate_s)} is shorter than the "
            f"wait before a key signs ({path}, {duration(wait_s)}): no key would ever sign"
        )


def _build(values: Mapping[str, Any], origins: dict[str, str], notes: list[str]) -> Config:
    import msgspec

    from tailbone.config.model import Config

    tree: dict[str, Any] = {"origins": origins, "notes": tuple(notes)}
    for path, value in values.items():
        *tables, name = BY_PATH[path].attributes
        branch = tree
        for table in tables:
            branch = branch.setdefault(table, {})
        branch[name] = value
    return msgspec.convert(tree, Config)
