"""The page of errors has every code, with what it means and what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from docs.errors_table import ADVICE, BEGIN, END, MEANINGS, PAGE, READINESS, kinds, problems, refresh
from tailbone.cli import tailbone

if TYPE_CHECKING:
    from pathlib import Path

CODES = {kind.code for kind in kinds()}


def test_the_tables_are_current() -> None:
    """They are made from the classes of errors and the servers' tables of statuses."""
    assert refresh(PAGE.read_text()) == PAGE.read_text(), "run: uv run python -m tests.docs.errors_table"


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


NOBODY = ("--issuer-url", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("status", "command"),
    [
        (0, ("version",)),
        (1, ("token", *NOBODY)),
        (1, ("verify",)),
        (1, ("policy", "lint", "policy.json")),
        (1, ("health", "--ts-dir", "nowhere")),
        (2, ("no-such-command",)),
        (2, ("config", "check", "policy.json")),
        (126, ("exec", *NOBODY, "--file", "a=token", "--", "./policy.json")),
        (127, ("exec", *NOBODY, "--file", "a=token", "--", "no-such-command")),
    ],
)
def test_exit_statuses(
    status: int, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are as the page says; those of running servers and commands are tested in tests/integration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    rule = '{"no-such-member": 1}'
    (tmp_path / "policy.json").write_text(
        f'{{"grants": [{{"app": {{"tailbone.dev/cap/token": [{rule}]}}}}]}}'
    )
    assert CliRunner().invoke(tailbone, command, input="not a token\n").exit_code == status
    assert re.search(rf"^\| (\d+, )?{status}(, \d+)? \|", PAGE.read_text(), re.MULTILINE)
