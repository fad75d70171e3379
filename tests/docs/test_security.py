"""Each row of the table in SECURITY.md names the tests that show it; tests that the papers name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"`(test_\w+|Test[A-Z]\w+|(?:tests|tsnet_go)/[\w./]+)`")


def defined() -> set[str]:
    """The names of all tests, in Python and Go."""
    python = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    go = (path.read_text() for path in (ROOT / "tsnet_go").rglob("*_test.go"))
    names = (re.findall(r"^(?:async )?def (test_\w+)|^func (Test\w+)", text, re.M) for text in (*python, *go))
    return {name for found in names for pair in found for name in pair if name}


def rows() -> list[list[str]]:
    """The cells of the table of who could want what."""
    table = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:]]


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]}: {row[1]}")
def test_each_row_has_its_test(row: list[str]) -> None:
    """Four cells, the last of them test names alone."""
    assert len(row) == 4
    assert all(NAME.fullmatch(name) for name in row[3].split(", "))


@pytest.mark.parametrize("paper", ["SECURITY.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "tests/README.md"])
def test_the_tests_that_are_named_exist(paper: str) -> None:
    """A test that is renamed or removed takes its name out of the papers."""
    named = set(NAME.findall((ROOT / paper).read_text()))
    known = defined()
    assert {name for name in named if not (ROOT / name).exists()} <= known
