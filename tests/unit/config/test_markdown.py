"""Facts about the table of settings as the README shows it."""

from __future__ import annotations

import re

from tailbone.config import SETTINGS, settings_table_markdown


def test_every_setting_is_a_row() -> None:
    """Nothing of the table is missing, nothing stands twice, and each row has six cells."""
    rows = settings_table_markdown().splitlines()
    assert sorted(setting.path for setting in SETTINGS) == sorted(row.split("`")[1] for row in rows[2:])
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {8}


def test_a_row_in_full() -> None:
    """Setting, flags, variables with tailscale's own, default, allowed values, and what it does."""
    assert (
        "| `server.tailscale.controlUrl` | `--ts-control-url` "
        "| `TB_SERVER_TAILSCALE_CONTROLURL`, `TS_CONTROL_URL` | Tailscale's | an http or https URL "
        "| Control server, for Headscale or a private tailnet. |"
    ) in settings_table_markdown().splitlines()
