"""The table of settings, and the code and structs that must agree with it."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from tailbone.config.kinds import Duration
from tailbone.config.load import load
from tailbone.config.model import Config
from tailbone.config.table import BY_LOWER_PATH, BY_PATH, BY_VARIABLE, GROUPS, SETTINGS, Setting

# The interface that existing users rely on: setting, flags, variable, default.
PROMISED = [
    ("log.level", ("--log-level",), "TB_LOG_LEVEL", "info"),
    ("log.format", ("--log-format",), "TB_LOG_FORMAT", "console"),
    ("log.no_color", (), "TB_LOG_NO_COLOR", "false"),
    ("keys.dir", ("--dir",), "TB_KEYS_DIR", "keys"),
    ("keys.bucket", ("--bucket",), "TB_KEYS_BUCKET", ""),
    ("keys.keyPath", ("--key-path",), "TB_KEYS_KEYPATH", ".well-known/jwks.json"),
    ("keys.issuer", ("--issuer",), "TB_KEYS_ISSUER", "tailbone"),
    ("keys.expiry", ("--expiry",), "TB_KEYS_EXPIRY", "20m"),
    ("keys.size", ("-s", "--size"), "TB_KEYS_SIZE", "2048"),
    ("key.prefix", (), "TB_KEY_PREFIX", "tb"),
    ("server.port", ("-p", "--port"), "TB_SERVER_PORT", "80"),
    ("server.binding", ("-b", "--binding"), "TB_SERVER_BINDING", "auto"),
    ("server.tailscale.authkey", ("--ts-authkey",), "TB_SERVER_TAILSCALE_AUTHKEY", ""),
    ("server.tailscale.joinTimeout", ("--ts-join-timeout",), "TB_SERVER_TAILSCALE_JOINTIMEOUT", "1m"),
    ("server.tailscale.joinRetry", ("--ts-join-retry",), "TB_SERVER_TAILSCALE_JOINRETRY", "1s"),
    ("server.tailscale.dir", ("--ts-dir",), "TB_SERVER_TAILSCALE_DIR", ".tsnet"),
    ("server.tailscale.hostname", ("--ts-hostname",), "TB_SERVER_TAILSCALE_HOSTNAME", "tailbone"),
    ("admin.binding", ("--admin-binding",), "TB_ADMIN_BINDING", "auto"),
    ("admin.port", ("--admin-port",), "TB_ADMIN_PORT", "50051"),
    ("components", ("--components",), "TB_COMPONENTS", "issuer, admin"),
    ("admin.client.host", ("--host",), "TB_ADMIN_CLIENT_HOST", "tailbone"),
    ("admin.client.port", ("--port",), "TB_ADMIN_CLIENT_PORT", "50051"),
    ("output", ("-o", "--output"), "TB_OUTPUT", "text"),
]


@pytest.mark.parametrize(("path", "flags", "variable", "default"), PROMISED)
def test_existing_settings_are_kept(path: str, flags: tuple[str, ...], variable: str, default: str) -> None:
    """A setting that people use keeps its name, flags, variable and default."""
    setting = BY_PATH[path]
    assert (flags, variable, default) == (setting.flags, setting.variable, setting.shown_default)


@pytest.mark.parametrize(
    ("path", "flag"),
    [
        ("server.tailscale.controlUrl", "--ts-control-url"),
        ("server.tailscale.ephemeral", "--ts-ephemeral"),
        ("server.tailscale.loopback", "--ts-loopback"),
        ("issuer.audiences", "--audience"),
        ("server.allowedHosts", "--allowed-host"),
        ("keys.algorithm", "--algorithm"),
    ],
)
def test_new_settings_have_their_flags(path: str, flag: str) -> None:
    """The settings that the Go program did not have can be set by flag."""
    assert flag == BY_PATH[path].flag


def test_names_are_unique() -> None:
    """Each setting has its own variable, and its own name in the file, where case does not matter."""
    assert len(SETTINGS) == len(BY_LOWER_PATH) == len(BY_VARIABLE)


@pytest.mark.parametrize(
    "command", ["server start", "server housekeeping", "dev", "keys generate", "keys list"]
)
def test_each_flag_of_a_command_means_one_setting(command: str) -> None:
    """The settings of a command have different flags."""
    takers = {command, command.split()[0], "*"}
    flags = [flag for setting in SETTINGS if takers & set(setting.commands) for flag in setting.flags]
    assert sorted(flags) == sorted(set(flags))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.path)
def test_every_setting_is_described(setting: Setting) -> None:
    """Each has a sentence of help, allowed values, a known section, and at least one command."""
    assert re.fullmatch(r"[A-Z].*\.", setting.help, re.DOTALL)
    assert setting.kind.allowed
    assert setting.group in GROUPS
    assert setting.commands


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.path)
def test_every_default_is_allowed(setting: Setting) -> None:
    """A default can also be written by hand, with the same meaning."""
    if setting.default is None:
        assert setting.default_text in BY_PATH
    elif setting.default != ():
        assert setting.default == setting.kind.parse(setting.kind.show(setting.default))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.path)
def test_every_setting_has_its_place_in_config(setting: Setting) -> None:
    """A run without settings has each default at the attribute that the table names."""
    value: Any = load(environ={})
    for attribute in setting.attributes:
        value = getattr(value, attribute)
    assert (value, type(value)) == (setting.default, type(setting.default))


def test_config_has_only_fields_of_the_table() -> None:
    """Every field of the structs is a setting of the table, so none is missing from the documents."""

    def leaves(struct: type[msgspec.Struct], before: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        found = set()
        for field in msgspec.structs.fields(struct):
            if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
                found |= leaves(field.type, (*before, field.name))
            else:
                found.add((*before, field.name))
        return found

    assert {setting.attributes for setting in SETTINGS} == leaves(Config) - {("origins",), ("notes",)}


def test_durations_are_named_in_seconds() -> None:
    """The name of a duration's field shows its unit."""
    named = [setting.path for setting in SETTINGS if setting.attributes[-1].endswith("_s")]
    assert [setting.path for setting in SETTINGS if isinstance(setting.kind, Duration)] == named


def test_only_the_auth_key_is_secret() -> None:
    """The only secret setting is marked as such."""
    assert [setting.path for setting in SETTINGS if setting.secret] == ["server.tailscale.authkey"]


def test_settings_that_point_at_production() -> None:
    """`tailbone dev` takes none of these from a variable."""
    production = {setting.path for setting in SETTINGS if setting.production}
    assert {"keys.bucket", "keys.dir", "keys.keyPath"} < production
    assert {path for path in BY_PATH if path.startswith("server.tailscale.")} < production
    bindings = {"server.metricsBinding", "server.probeBinding"}
    assert all(path.startswith(("keys.", "server.tailscale.")) for path in production - bindings)
