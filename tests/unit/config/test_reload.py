"""What a reload changes, and what needs a restart."""

from __future__ import annotations

import pytest

from tailbone.config.load import load
from tailbone.config.reload import compare
from tailbone.config.table import SETTINGS

CURRENT = load({"server.port": "81", "issuer.deny": "tag:old"}, environ={})


def test_nothing_has_changed() -> None:
    """The settings stay the same."""
    assert compare(CURRENT, CURRENT) == (CURRENT, (), ())


def test_the_settings_that_change_while_the_server_runs() -> None:
    """Level, audiences, allowed hosts, expiry and deny list: no others."""
    assert {setting.path for setting in SETTINGS if setting.live} == {
        "log.level",
        "issuer.audiences",
        "server.allowedHosts",
        "keys.expiry",
        "issuer.deny",
    }


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        ("log.level", "debug", "log.level: info -> debug"),
        ("issuer.audiences", "a,b", "issuer.audiences:  -> a, b"),
        ("server.allowedHosts", "a.example", "server.allowedHosts:  -> a.example"),
        ("keys.expiry", "5m", "keys.expiry: 20m -> 5m"),
        ("issuer.deny", "tag:new", "issuer.deny: tag:old -> tag:new"),
    ],
)
def test_a_setting_that_changes_while_the_server_runs(path: str, text: str, line: str) -> None:
    """It has the new value, all others keep theirs; the line has the old and the new one."""
    found = load({"server.port": "81", "issuer.deny": "tag:old", path: text}, environ={})
    change = compare(CURRENT, found)
    assert (change.changed, change.need_restart) == ((line,), ())
    assert compare(change.config, found) == (change.config, (), ())


def test_others_keep_their_values() -> None:
    """They are named, again and again until the restart; a secret is not shown."""
    found = load({"server.port": "82", "server.tailscale.authkey": "secret", "keys.expiry": "5m"}, environ={})
    change = compare(CURRENT, found)
    assert change.need_restart == ("server.port", "server.tailscale.authkey")
    assert (change.config.server.port, change.config.keys.expiry_s) == (81, 300.0)
    assert compare(change.config, found).need_restart == change.need_restart
