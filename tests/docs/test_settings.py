"""The table of settings is current."""

from __future__ import annotations

import re

from docs.settings_table import BEGIN, END, PAGE, refresh
from tailbone.config.table import SETTINGS


def test_the_settings_table_is_current() -> None:
    """The page contains the table from which flags, variables and the file are generated."""
    assert refresh(PAGE.read_text()) == PAGE.read_text(), "run: uv run python -m tests.docs.settings_table"


def test_the_settings_table_has_every_setting_once() -> None:
    """Each row names its setting, flags, variables, default, allowed values and purpose."""
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = table.splitlines()
    assert sorted(setting.path for setting in SETTINGS) == sorted(row.split("`")[1] for row in rows[2:])
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {8}
    assert (
        "| `server.tailscale.controlUrl` | `--ts-control-url` "
        "| `TB_SERVER_TAILSCALE_CONTROLURL`, `TS_CONTROL_URL` | Tailscale's | an http or https URL "
        "| Control server, for Headscale or a private tailnet. |"
    ) in rows
