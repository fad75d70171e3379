"""Compare the settings of a running server with those that were read again. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tailbone.config.table import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailbone.config.model import Config


class Change(NamedTuple):
    """What a reload changes.

    Attributes:
        config: the current settings, with the new values of those that can change while the server runs.
        changed: these settings, with their old and new values.
        need_restart: the paths of the other settings that differ.
    """

    config: Config
    changed: tuple[str, ...]
    need_restart: tuple[str, ...]


def compare(current: Config, found: Config) -> Change:
    """Return what changes if ``found`` replaces ``current``.

    Args:
        current: the settings of the running server, as they were loaded.
        found: the settings as they are now.
    """
    config, changed, need_restart = current, [], []
    for setting in SETTINGS:
        old, new = current.value(setting), found.value(setting)
        if old == new:
            continue
        if setting.live:
            config = _with(config, setting.attributes, new)
            changed.append(f"{setting.path}: {setting.kind.show(old)} -> {setting.kind.show(new)}")
        else:
            need_restart.append(setting.path)
    return Change(config, tuple(changed), tuple(need_restart))


def _with(struct: Any, attributes: Sequence[str], value: object) -> Any:
    """Return a copy of nested structs with one value replaced."""
    name, *inner = attributes
    new = _with(getattr(struct, name), inner, value) if inner else value
    return msgspec.structs.replace(struct, **{name: new})
