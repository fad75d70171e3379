"""Rendering of log lines: their form, and values that must not break it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbone.process.render import Console, render_json

if TYPE_CHECKING:
    from tailbone.process.render import Render

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,6}Z")
PLAIN = Console(colors=False)
BOTH = pytest.mark.parametrize("render", [render_json, PLAIN], ids=["json", "console"])


def test_a_console_line_in_full() -> None:
    """Values that contain spaces or are empty are in quotes."""
    fields = {"component": "issuer", "sub": "user:1", "name": "A B", "empty": "", "tags": ["x", "y z"]}
    time, rest = PLAIN("warn", "no good", fields).decode().split(" ", 1)
    assert TIME.fullmatch(time)
    assert rest == 'WARN  no good component=issuer sub=user:1 name="A B" empty="" tags=[x, "y z"]\n'


@BOTH
def test_a_traceback_omits_local_variables(render: Render) -> None:
    """A traceback names the line, without the values of its variables."""

    def fail() -> None:
        local = "very" + "secret"
        raise ValueError(len(local))

    try:
        fail()
    except ValueError:
        text = render("error", "failed", {"exc_info": True}).decode()
    assert "ValueError: 10" in text
    assert "Traceback (most recent call last)" in text
    assert "verysecret" not in text


def test_exc_info_without_an_exception_is_ignored() -> None:
    """The line has no traceback."""
    assert {"time", "level", "event"} == set(json.loads(render_json("error", "x", {"exc_info": True})))


@pytest.mark.parametrize(
    ("shown", "value"),
    [
        (r'"a\nINFO forged"', "a\nINFO forged"),
        (r'"\x1b[2J"', "\x1b[2J"),
        (r'"\x9b2J"', "\x9b2J"),
        (r'"\u202etxt"', "\u202etxt"),
        (r'"say \"x\""', 'say "x"'),
        ("Jörg", "Jörg"),
        (r'"\ud800"', "\ud800"),
    ],
)
def test_a_value_cannot_forge_a_line_or_control_a_terminal(shown: str, value: str) -> None:
    """Control characters, and those that change the text direction, are shown as escapes."""
    line = PLAIN("info", "x", {"name": value}).decode()
    assert line.split("INFO  ")[1] == f"x name={shown}\n"


def test_a_field_cannot_change_time_or_level() -> None:
    """A field with such a name is renamed."""
    record = json.loads(render_json("info", "x", {"level": "error", "time": "0"}))
    assert (record["level"], record["level_"], record["time_"]) == ("info", "error", "0")
    assert TIME.fullmatch(record["time"])


cycle: list[Any] = []
cycle.append(cycle)


@BOTH
@pytest.mark.parametrize(
    "value",
    [
        Path("/x"), b"\xff", {1: 2}, {("a",): 1}, {"a"}, object(), 1 << 80, float("nan"), ValueError("v"),
        "\ud800", cycle, int,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_any_value_can_be_rendered(render: Render, value: object) -> None:
    """Every value results in one line."""
    assert render("info", "x", {"field": value}).count(b"\n") == 1


@BOTH
@given(event=st.text(), fields=st.dictionaries(st.text(min_size=1), st.text()))
def test_any_text_can_be_rendered(render: Render, event: str, fields: dict[str, str]) -> None:
    """Any text results in one line, in both forms."""
    assert render("info", event, fields).count(b"\n") == 1
