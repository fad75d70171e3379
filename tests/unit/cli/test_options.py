"""Flags of settings: which commands have them, what help says of them, and which one wins."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from tailbone.cli.options import (
    Command,
    Group,
    Invocation,
    SettingOption,
    flagless_for,
    options_for,
    pass_invocation,
)
from tailbone.config.table import BY_PATH
from tailbone.errors import TailboneError


@click.group(cls=Group, settings="server")
def server() -> None:
    """A group with the flags of the server."""


@server.command(cls=Command, settings="server start")
@pass_invocation
def start(invocation: Invocation) -> None:
    """Print the flags."""
    click.echo(f"{invocation.flags} {invocation.config_file}")


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        (["start"], "{} None"),
        (["--port", "81", "start"], "{'server.port': '81'} None"),
        (["--port", "81", "start", "--port", "82"], "{'server.port': '82'} None"),
        (["start", "--no-ts-ephemeral"], "{'server.tailscale.ephemeral': 'false'} None"),
        (["start", "--components", "issuer", "--components", "admin"],
         "{'components': ['issuer', 'admin']} None"),
        (["--config", "a", "start"], "{} a"),
        (["--config", "a", "start", "--config", "b"], "{} b"),
    ],
)  # fmt: skip
def test_the_last_flag_wins(arguments: list[str], flags: str) -> None:
    """Flags are recorded as text, and checked when they are loaded."""
    assert CliRunner().invoke(server, arguments).stdout == f"{flags}\n"


def test_a_command_has_its_own_flags_and_those_of_its_group() -> None:
    """Flags of other commands are unknown to it."""
    paths = {option.setting.path for option in options_for("keys list") if isinstance(option, SettingOption)}
    assert {"admin.client.host", "keys.dir", "output"} <= paths
    assert "server.port" not in paths


def test_settings_without_a_flag_are_those_of_the_command() -> None:
    """They are listed in its help."""
    paths = {setting.path for setting in flagless_for("server start")}
    assert {"keys.maxAge", "issuer.deny"} <= paths
    assert "server.port" not in paths


def test_help_shows_default_and_variable() -> None:
    """dev does not read the variables of production, and so does not show them."""
    context = click.Context(start)
    record = SettingOption(BY_PATH["server.port"]).get_help_record(context)
    assert record is not None
    assert record[1].endswith("[default: 80; env: TB_SERVER_PORT]")
    record = SettingOption(BY_PATH["keys.bucket"], isolated=True).get_help_record(context)
    assert record is not None
    assert "TB_KEYS_BUCKET" not in record[1]


@pytest.mark.parametrize(
    ("flag", "shown"),
    [("info", ["tailbone: it failed"]), ("debug", ["tailbone: detail: why", "tailbone: it failed"])],
)
def test_an_error_is_one_line(flag: str, shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Its detail is shown at debug."""
    invocation = Invocation()
    invocation.flags["log.level"] = flag
    invocation.report(TailboneError("it\nfailed", detail="why"))
    assert capsys.readouterr().err.splitlines() == shown
