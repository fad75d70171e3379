"""Results as JSON, as YAML and in columns."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tailbone.cli.output import columns, render

SCALARS = st.none() | st.booleans() | st.integers() | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_json_is_one_line() -> None:
    """Scripts can read line by line."""
    assert render([{"key": {"key_id": "tb-1"}}], "json") == '[{"key": {"key_id": "tb-1"}}]'


def test_yaml_in_full() -> None:
    """Fields keep their order; text that could be read as another type is in quotes."""
    value = [
        {"key_id": "tb-1", "created_at": 1, "note": None, "own": True},
        {"tags": ["tag:ci", "yes", "1.0"], "none": [], "deep": {"a": {}}},
    ]
    assert render(value, "yaml").splitlines() == [
        "- key_id: tb-1",
        "  created_at: 1",
        "  note: null",
        "  own: true",
        "- tags:",
        "  - tag:ci",
        "  - 'yes'",
        "  - '1.0'",
        "  none: []",
        "  deep:",
        "    a: {}",
    ]


@given(VALUES)
def test_json_parses_back(value: Any) -> None:
    """Nothing is lost or changed."""
    assert value == json.loads(render(value, "json"))


@given(VALUES)
def test_yaml_parses_back(value: Any) -> None:
    """Nothing is lost or changed, whatever the text."""
    assert value == yaml.safe_load(render(value, "yaml"))


@pytest.mark.parametrize(
    "text",
    ["yes", "No", "on", "null", "~", "1", "1e3", "0x1f", "1_000", "2026-01-01", "12:30", ".inf", "NaN", "",
     " x", "x ", "a: b", "- a", "#", "a #b", "&a", "*a", "!a", "%a", "@a", "`a", "{a", "[a", "a,b", "?", "|",
     ">", "<<", "=", "---", "...", "\x85", "\u2028", "\x7f", "😀", "'", '"', "\\"],
)  # fmt: skip
def test_text_stays_text_in_yaml(text: str) -> None:
    """Text that resembles a number, a date, a keyword or an indicator of YAML is quoted."""
    assert {text: [text]} == yaml.safe_load(render({text: [text]}, "yaml"))


def test_columns_are_aligned() -> None:
    """Columns are as wide as their widest cell, two spaces apart, without spaces at the end."""
    assert columns([("a", "bb", ""), ("ccc", "d", "e")]) == ["a    bb", "ccc  d   e"]


def test_columns_cannot_control_the_terminal() -> None:
    """Text from the network is escaped, and the columns are as wide as what is shown."""
    assert columns([("a\x1b[2J", "b"), ("c", "d\n")]) == ["a\\x1b[2J  b", "c         d\\n"]
