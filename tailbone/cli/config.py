"""``tailbone config``: show, check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tailbone.cli.options import Command, Group, Invocation, pass_invocation
from tailbone.cli.output import columns, render
from tailbone.config.table import SETTINGS, Setting
from tailbone.text import MASK, redact

if TYPE_CHECKING:
    from tailbone.config.model import Config

_HEADERS = ("SETTING", "VALUE", "FROM")


@click.group(cls=Group, settings="server start", only_own=True)
def config() -> None:
    """Show the settings of this machine, or check a settings file.

    The flags of `tailbone server start` are accepted, and count as they do there.
    """


@config.command(cls=Command, settings="server start", only_own=True)
@pass_invocation
def show(invocation: Invocation) -> None:
    """Print every setting, its value and where that was set. Secrets are masked."""
    loaded = invocation.load()
    if loaded.output == "text":
        rows = [(setting.path, _text(setting, loaded), loaded.origin(setting.path)) for setting in SETTINGS]
        for line in columns((_HEADERS, *rows)):
            click.echo(line)
        return
    values = [
        {
            "setting": setting.path,
            "value": _plain(setting, loaded),
            "from": loaded.origin(setting.path),
        }
        for setting in SETTINGS
    ]
    click.echo(render(values, loaded.output))


@config.command(cls=Command, settings="server start", only_own=True)
@click.argument("file", type=click.Path(), required=False)
@pass_invocation
def check(invocation: Invocation, file: str | None) -> None:
    """Check the settings as `tailbone server start` would, with FILE as the settings file.

    Flags and variables count, too. The exit code is 2 if a setting is wrong. Nothing is joined or written,
    and an auth key's file is not read.
    """
    if file is not None:
        invocation.config_file = file
    loaded = invocation.load()
    from tailbone.daemon.addresses import check_ports

    check_ports(loaded)


def _text(setting: Setting, loaded: Config) -> str:
    """Return a value for people; of a default that has no value, its description."""
    if not loaded.is_set(setting.path):
        return setting.shown_default
    return _masked(setting, setting.kind.show(loaded.value(setting)))


def _plain(setting: Setting, loaded: Config) -> Any:
    """Return a value for programs, as the settings file has it."""
    value = loaded.value(setting)
    if isinstance(value, tuple):
        return [redact(item) for item in value]
    return _masked(setting, setting.kind.show(value)) if isinstance(value, (str, float)) else value


def _masked(setting: Setting, text: str) -> str:
    # The path of a secret's file is not a secret.
    return MASK if setting.secret and text and not text.startswith("file:") else redact(text)
