"""Each row of SECURITY.md's table names its tests, and every test that a document names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"`(test_\w+|Test[A-Z]\w+|(?:tests|tsnet_go)/[\w./]+)`")


def defined() -> set[str]:
    """Return the names of all tests, in Python and Go."""
    python = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    go = (path.read_text() for path in (ROOT / "tsnet_go").rglob("*_test.go"))
    names = (re.findall(r"^(?:async )?def (test_\w+)|^func (Test\w+)", text, re.M) for text in (*python, *go))
    return {name for found in names for pair in found for name in pair if name}


def rows() -> list[list[str]]:
    """Return the cells of the threat table, row by row."""
    table = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:]]


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]}: {row[1]}")
def test_each_row_names_its_tests(row: list[str]) -> None:
    """A row has four cells, and the last contains only names of tests."""
    assert len(row) == 4
    assert all(NAME.fullmatch(name) for name in row[3].split(", "))


@pytest.mark.parametrize("document", ["SECURITY.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "tests/README.md"])
def test_the_tests_that_a_document_names_exist(document: str) -> None:
    """Whenever a test is renamed or removed, the documents must follow."""
    named = set(NAME.findall((ROOT / document).read_text()))
    known = defined()
    assert {name for name in named if not (ROOT / name).exists()} <= known
