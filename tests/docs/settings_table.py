"""Generate the table of settings in docs/settings.md; ``python -m tests.docs.settings_table`` writes it."""

from __future__ import annotations

from pathlib import Path

from tailbone.config.table import GROUPS, SETTINGS, Setting

from .pages import replaced

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
BEGIN = "<!-- settings: made by tests/docs/settings_table.py from tailbone/config/table.py -->\n"
END = "<!-- /settings -->"


def settings_table() -> str:
    """Return the table: one row for each setting, in the order of ``--help``."""
    rows = ["| setting | flag | variable | default | allowed | what it does |", "|---|---|---|---|---|---|"]
    rows += [_row(setting) for group in GROUPS for setting in SETTINGS if setting.group == group]
    return "\n".join(rows) + "\n"


def _row(setting: Setting) -> str:
    flags = ", ".join(f"`{flag}`" for flag in setting.flags)
    variables = ", ".join(f"`{name}`" for name in (setting.variable, *setting.fallbacks))
    default = setting.default_text or (f"`{setting.shown_default}`" if setting.shown_default else "")
    what = f"{setting.help} SIGHUP rereads it." if setting.live else setting.help
    cells = (f"`{setting.path}`", flags, variables, default, setting.kind.brief, what)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def refresh(text: str) -> str:
    """Return the page's *text* with the current table."""
    return replaced(text, BEGIN, END, settings_table())


if __name__ == "__main__":
    PAGE.write_text(refresh(PAGE.read_text()))
