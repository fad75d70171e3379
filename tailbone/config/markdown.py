"""The table of settings as Markdown, for the README."""

from __future__ import annotations

from tailbone.config.table import GROUPS, SETTINGS, Setting


def settings_table_markdown() -> str:
    """One row a setting, in the order of ``--help``; a test keeps the README's copy equal to it."""
    rows = ["| setting | flag | variable | default | allowed | what it does |", "|---|---|---|---|---|---|"]
    rows += [_row(setting) for group in GROUPS for setting in SETTINGS if setting.group == group]
    return "\n".join(rows) + "\n"


def _row(setting: Setting) -> str:
    flags = ", ".join(f"`{flag}`" for flag in setting.flags)
    variables = ", ".join(f"`{name}`" for name in (setting.variable, *setting.fallbacks))
    default = (
        f"`{setting.shown_default}`"
        if setting.shown_default and not setting.default_text
        else setting.default_text
    )
    cells = (f"`{setting.path}`", flags, variables, default, setting.kind.brief, setting.help)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
