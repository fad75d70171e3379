"""HuJSON is JSON with comments and trailing commas, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbone.policy_file.hujson import HuJSONError, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(JSON, st.sampled_from([None, 2]), st.booleans())
def test_json_is_hujson(value: Any, indent: int | None, ascii_only: bool) -> None:
    """Every JSON document is read as by the standard library."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert parse(text).value == json.loads(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1, 2,]", [1, 2]),
        ('{"a": 1,}', {"a": 1}),
        ("// note\n[1] // more\n", [1]),
        ("/* a\n * b **/ [/**/1/* x */,/* y */]", [1]),
        ('["// no comment", "/* none */"]', ["// no comment", "/* none */"]),
        (" \t\r\n[]\n", []),
        (r'["\"\\\/\b\f\n\r\té"]', ['"\\/\b\f\n\r\té']),
        ("[-0, 1e3, 1.5E-2]", [0, 1000.0, 0.015]),
    ],
)
def test_what_is_read(text: str, value: Any) -> None:
    """Comments stand where white space may; one comma may follow the last item."""
    assert parse(text).value == value


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "expected a value, found the end of the file"),
        ("[1\n2]", 2, "expected a comma or ]"),
        ("[1,,2]", 1, "expected a value, found ','"),
        ("[,]", 1, "expected a value, found ','"),
        ('{"a" 1}', 1, "expected a colon after the name 'a'"),
        ('{"a": 1\n"b": 2}', 2, "expected a comma or }"),
        ("{a: 1}", 1, "the name of a member must be in double quotes"),
        ("{1: 1}", 1, "the name of a member must be in double quotes"),
        ("\n\n['a']", 3, 'expected a value, found "\'"'),
        ("[01]", 1, "expected a value, found '0'"),
        ("[1.]", 1, "expected a value, found '1'"),
        ("[NaN]", 1, "expected a value, found 'N'"),
        ("[1,\n1e400]", 2, "Number out of range"),
        ("[truex]", 1, "expected a value, found 't'"),
        ('["a\nb"]', 1, "expected a value, found '\"'"),
        ('["\\x41"]', 1, "expected a value, found '\"'"),
        ("[1] 2", 1, "something follows the end of the document"),
        ("[1] // the line must end", 1, "something follows the end of the document"),
        ("[1\n/* open", 2, "expected a comma or ]"),
        ("[1 # note\n]", 1, "expected a comma or ]"),
        ("[" * 200, 1, "more than 100 levels are nested"),
    ],
)
def test_what_is_refused(text: str, line: int, message: str) -> None:
    """An error names its line, and what was expected."""
    with pytest.raises(HuJSONError) as caught:
        parse(text)
    assert (caught.value.line, str(caught.value)) == (line, message)


def test_lines() -> None:
    """Each value knows its line."""
    root = parse('\n{\n  // note\n  "a": [\n    1,\n    {"b":\n 2},\n  ],\n}')
    array = root.members["a"]
    assert (root.line, array.line, array.items[0].line, array.items[1].line) == (2, 4, 5, 6)
    assert array.items[1].members["b"].line == 7


def test_repeated_names() -> None:
    """The last value of a repeated name counts, and the name is known."""
    root = parse('{"a": 1,\n"a": 2,\n"b": 3}')
    assert (root.value, root.repeated) == ({"a": 2, "b": 3}, (("a", 2),))


@given(st.text(st.sampled_from(list('{}[]",:/*\\ \n1-.eatrue')), max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text raises anything else."""
    line = 1
    try:
        parse(text)
    except HuJSONError as error:
        line = error.line
    assert 1 <= line <= text.count("\n") + 1
