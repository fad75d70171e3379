"""The sources of settings besides flags: the settings file and the environment."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailbone.config.table import BY_LOWER_PATH, BY_VARIABLE, SETTINGS, VARIABLE_PREFIX, Setting
from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FILE_NAME = ".tailbone.toml"
CONFIG_VARIABLE = "TB_CONFIG"
_LARGEST_FILE = 1 << 20

# Formats besides TOML that the earlier Go program read. Such a file is an error: ignoring it would silently
# lose its settings.
_FOREIGN_SUFFIXES = (
    ".yaml", ".yml", ".json", ".ini", ".hcl", ".tfvars", ".env", ".dotenv", ".properties", ".props", ".prop",
)  # fmt: skip

# Variables that Kubernetes sets in every pod for a service whose name starts with "tb".
_KUBERNETES_LINK = re.compile(r"TB_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_\d+_(TCP|UDP|SCTP)(_.*)?)")
_KUBERNETES_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")


def file_in_home(environ: Mapping[str, str], notes: list[str]) -> Path | None:
    """Return the settings file in ``$HOME``, if there is one.

    Args:
        environ: the environment; without HOME there is no file.
        notes: receives a note if the home directory cannot be searched.

    Raises:
        ConfigError: there is a settings file in a format that only the Go program read.
    """
    home = environ.get("HOME", "")
    if not home:
        return None
    ours = Path(home, FILE_NAME)
    try:
        for suffix in ("", *_FOREIGN_SUFFIXES):
            foreign = Path(home, f".tailbone{suffix}")
            if _is_there(foreign) and not foreign.is_dir():
                raise ConfigError(f"{foreign}: settings are read from TOML only: move them to {ours}")
        return ours if _is_there(ours) else None
    except PermissionError:
        # The process inherited another user's HOME, as happens with setpriv and su.
        notes.append(f"{home} (HOME) cannot be searched by this user: no settings file is read from it")
        return None


def _is_there(path: Path) -> bool:
    """Return whether *path* exists, even as a dangling link.

    Raises:
        PermissionError: its folder cannot be searched; ``Path.exists`` hides that in newer Pythons.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def read_file(path: Path) -> dict[str, Any]:
    """Read the settings in the TOML file *path*.

    Returns:
        Setting paths, spelt as in the table, and their TOML values.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or contains a name that is not a setting.
    """
    if path.suffix.lower() in _FOREIGN_SUFFIXES:
        raise ConfigError(f"{path}: settings are read from TOML only, not from {path.suffix.lower()} files")
    found: dict[str, Any] = {}
    for name, value in _leaves(_toml(path), ""):
        setting = BY_LOWER_PATH.get(name.lower())
        if setting is None:
            raise ConfigError(_unknown_in_file(path, name))
        if setting.path in found:
            raise ConfigError(f"{path}: {setting.path} is set twice (upper and lower case are the same)")
        found[setting.path] = value
    return found


def read_limited(path: Path) -> bytes:
    """Read a file of at most 1 MiB. It may be a pipe, as in ``--config <(…)``.

    Raises:
        OSError: the file cannot be read, or is longer.
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return content


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        content = read_limited(path)
    except OSError as error:
        raise ConfigError(f"{path}: the settings file cannot be read: {error.strerror}") from error
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text, as TOML must be") from None
    except tomllib.TOMLDecodeError as error:
        # tomllib's messages contain a position, and at most one character or a key's name: never a value.
        raise ConfigError(f"{path}{_position(str(error))}") from None
    except RecursionError:
        raise ConfigError(f"{path}: its arrays are nested too deeply") from None


def _position(message: str) -> str:
    """Move the position to the front of a tomllib message: ``Invalid value (at line 3, column 7)``."""
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    if not match:
        return f": not TOML: {message}"
    return f", line {match[2]}, column {match[3]}: not TOML: {match[1]}"


def _leaves(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield each setting's name and value; also an empty unknown table, so that it is refused."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        lower = name.lower()
        is_table = any(known.startswith(f"{lower}.") for known in BY_LOWER_PATH)
        if isinstance(value, dict) and lower not in BY_LOWER_PATH and (value or is_table):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _unknown_in_file(path: Path, name: str) -> str:
    tables = sorted({known.path.rpartition(".")[0] for known in SETTINGS} - {""})
    for table in tables:
        if name.lower() == table.lower() or table.lower().startswith(f"{name.lower()}."):
            return f"{path}: {name} is a table, not a setting: write [{table}] and its settings below"
    return f"{path}: unknown setting {name}{nearest_setting(name)}"


def nearest_setting(name: str) -> str:
    """Return a hint that lists the settings with the most similar names, or those of the same table."""
    import difflib

    lower = name.lower()
    table, _, last = lower.rpartition(".")
    near = difflib.get_close_matches(lower, BY_LOWER_PATH, n=1, cutoff=0.75)
    if not near:
        lasts = {known: known.rpartition(".")[2] for known in BY_LOWER_PATH}
        same = difflib.get_close_matches(last, list(lasts.values()), n=1, cutoff=0.8)
        near = [known for known, known_last in lasts.items() if same and known_last == same[0]]
    if near:
        return f"; did you mean {' or '.join(BY_LOWER_PATH[known].path for known in near)}?"
    siblings = [known.path for known in SETTINGS if table and known.path.lower().rpartition(".")[0] == table]
    return f"; known there: {', '.join(siblings)}" if siblings else ""


def variable_value(
    setting: Setting, variables: Sequence[str], environ: Mapping[str, str], *, isolated: bool
) -> tuple[str, str] | None:
    """Return the value and the origin of the first of a setting's variables that is set, and not empty.

    Args:
        setting: the setting.
        variables: its own variable, or its fallbacks.
        environ: the environment.
        isolated: ignore variables that point at production; see ``load``.
    """
    if isolated and setting.production:
        return None
    return next(((environ[name], f"variable {name}") for name in variables if environ.get(name)), None)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a note for each TB_ variable that sets nothing.

    This is not an error, unlike an unknown name in the file: other programs may use variables with this
    prefix, and Kubernetes sets some for services called tb-something.
    """
    notes = []
    for variable in sorted(environ):
        if not variable.startswith(VARIABLE_PREFIX) or variable in BY_VARIABLE or variable == CONFIG_VARIABLE:
            continue
        value = environ[variable]
        of_kubernetes = _KUBERNETES_LINK.fullmatch(variable) or _KUBERNETES_ADDRESS.fullmatch(value)
        if value and not of_kubernetes:
            notes.append(f"variable {variable} sets nothing{_nearest_variable(variable)}")
    return notes


def _nearest_variable(variable: str) -> str:
    import difflib

    near = difflib.get_close_matches(variable, [*BY_VARIABLE, CONFIG_VARIABLE], n=1, cutoff=0.8)
    return f"; did you mean {near[0]}?" if near else ""
