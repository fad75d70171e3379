"""The page of errors has every code, with what it means and what to do."""

from __future__ import annotations

import re

from docs.errors_table import ADVICE, BEGIN, END, MEANINGS, PAGE, READINESS, kinds, problems, refresh

CODES = {kind.code for kind in kinds()}


def test_the_tables_are_current() -> None:
    """They are made from the classes of errors and the servers' tables of statuses."""
    assert refresh(PAGE.read_text()) == PAGE.read_text(), "run: uv run python tests/docs/errors_table.py"


def test_every_code_has_its_row() -> None:
    """Each code of a class, and each code of readiness, is once in its table, and no other."""
    generated = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = re.findall(r"^\|[^`]*`(\w+)` \|.*[^| ] \|$", generated.replace("`error`", ""), re.MULTILINE)
    assert sorted(rows) == sorted([*CODES, *READINESS])


def test_nothing_is_said_of_codes_that_do_not_exist() -> None:
    """Advice and meanings are of current codes."""
    assert set(ADVICE) == CODES
    assert set(MEANINGS) < CODES
    assert set(READINESS) == problems()
