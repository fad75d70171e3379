"""Render the log: one event becomes one line, as JSON or as text for people."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from tailbone.text import escape

Render = Callable[[str, str, Mapping[str, Any]], bytes]
"""Renders level, event and fields as a line with its newline; ``exc_info`` requests a traceback."""


def render_json(level: str, event: str, fields: Mapping[str, Any]) -> bytes:
    """Render one line of JSON: time, level and event first, then the fields."""
    line: dict[str, Any] = {"time": datetime.now(UTC), "level": level, "event": event}
    for key, value in fields.items():
        if key != "exc_info":
            # A field cannot change time or level.
            line[f"{key}_" if key in line else key] = value
        elif text := _traceback(value):
            line["exception"] = text
    try:
        return _encode(line) + b"\n"
    except (TypeError, ValueError, RecursionError):
        # No content may make a log line fail: unpaired surrogates, odd keys, cycles.
        return (
            _encode({str(key): value if key == "time" else ascii(value) for key, value in line.items()})
            + b"\n"
        )


class Console:
    """Renders lines for people: time, level, event, ``field=value``."""

    def __init__(self, *, colors: bool) -> None:
        red, yellow, green, dim, cyan, off = (
            ("\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[2m", "\x1b[36m", "\x1b[0m") if colors else ("",) * 6
        )
        by_level = {"trace": dim, "debug": dim, "info": green, "warn": yellow, "error": red}
        self._levels = {level: f"Z{off} {color}{level.upper():5}{off} " for level, color in by_level.items()}
        self._before, self._key, self._off = dim, cyan, off
        self._second, self._clock = -1, ""

    def __call__(self, level: str, event: str, fields: Mapping[str, Any]) -> bytes:
        """Render one event; a traceback follows on further lines."""
        line = self._time() + self._levels[level] + escape(event)
        for key, value in fields.items():
            if key != "exc_info":
                line += f" {self._key}{escape(key)}{self._off}={_shown(value)}"
        rows = _traceback(fields.get("exc_info")).splitlines()
        line = "\n".join([line, *map(escape, rows)])
        return f"{line}\n".encode("utf-8", "backslashreplace")

    def _time(self) -> str:
        """Return UTC to the millisecond; date and second are formatted once a second."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._clock = self._before + time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._clock}.{int((now - second) * 1000):03}"


def _traceback(found: object) -> str:
    """Return the traceback that ``exc_info`` requests, without local variables: they may hold secrets."""
    error = sys.exception() if found is True else found[1] if isinstance(found, tuple) else found
    return "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""


def _plain(value: object) -> object:
    """Return text for a value that JSON cannot represent."""
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return str(value)


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def _shown(value: object) -> str:
    if isinstance(value, list | tuple | set | frozenset):
        # Python's own str shows deeper levels, and handles cycles.
        return f"[{', '.join(_shown(item if isinstance(item, str) else _plain(item)) for item in value)}]"
    text = value if isinstance(value, str) else str(_plain(value))
    if text and text.isprintable() and " " not in text and '"' not in text and "=" not in text:
        return text
    return '"' + escape(text).replace('"', '\\"') + '"'
