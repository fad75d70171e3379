"""The log: lines of text or JSON on one stream, from our own code and from the libraries.

An event goes through one renderer (``render``) and one write (``sink``), without standard-library logging in
between: a token's line is written in every request, so it must be cheap (about 7 µs).
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TextIO

from tailbone.process.render import Console, Render, render_json
from tailbone.process.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS: Final = {"trace": 5, "debug": 10, "info": 20, "warn": 30, "error": 40}
"""Our levels, as the numbers of the standard library's logging."""

# Their debug lines contain the headers of signed requests.
_NO_DEBUG: Final = (
    "botocore",
    "aiobotocore",
    "boto3",
    "urllib3",
    "aiohttp",
    "httpx2",
    "httpcore2",
    "hpack",
    "asyncio",
)


class LogSettings(Protocol):
    """The settings that :func:`configure` needs."""

    @property
    def level(self) -> str:
        """One of :data:`LEVELS`."""

    @property
    def format(self) -> str:
        """``console`` or ``json``."""

    @property
    def no_color(self) -> bool:
        """Use no colours, even on a terminal."""


class Output(NamedTuple):
    """Where lines go, in which form, and from which level on."""

    level: int
    render: Render
    sink: Sink

    def write(self, level: str, event: str, fields: Mapping[str, Any], *, strict: bool = False) -> None:
        line = self.render(level, event, fields)
        if strict:
            self.sink.write(line)
            return
        lost = self.sink.lost
        gap = self.render("warn", "log lines could not be written", {"lost": lost}) if lost else b""
        self.sink.write_or_count(line, gap)


class Logger:
    """Writes events: a short text, and facts as fields.

    ``exc_info=True``, or an exception, adds a traceback.
    """

    __slots__ = ("_output", "_strict")

    def __init__(self, *, strict: bool, output: Output | None = None) -> None:
        """Make a logger; see :func:`get_logger`. Without ``output``, it writes to the process's log."""
        self._strict = strict
        self._output = output

    def trace(self, event: str, /, **fields: Any) -> None:
        """Log network details for debugging."""
        self._log("trace", event, fields)

    def debug(self, event: str, /, **fields: Any) -> None:
        """Log details for debugging."""
        self._log("debug", event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """Log an event of normal operation."""
        self._log("info", event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """Log a problem that an operator should look at."""
        self._log("warn", event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """Log a failure."""
        self._log("error", event, fields)

    def _log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        output = self._output or _output
        if self._strict or LEVELS[level] >= output.level:
            output.write(level, event, fields, strict=self._strict)


class _Both(Logger):
    """Writes each line to two logs."""

    __slots__ = ("_logs",)

    def __init__(self, *logs: Logger) -> None:
        super().__init__(strict=False)
        self._logs = logs

    def _log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        for log in self._logs:
            log._log(level, event, fields)  # noqa: SLF001


def both(log: Logger, other: Logger | None) -> Logger:
    """Return a logger whose lines go to both; ``log`` itself if there is no other."""
    return log if other is None else _Both(log, other)


def get_logger(*, strict: bool = False) -> Logger:
    """Return a logger. A later call of :func:`configure` also applies to it.

    Args:
        strict: write lines at every log level, and raise OSError if one cannot be written, for actions that
            must not happen unlogged. Other loggers count lost lines, and report the number when lines can be
            written again.
    """
    return Logger(strict=strict)


def configure(settings: LogSettings, *, stream: TextIO | None = None) -> None:
    """Set up the log of this process, before its first line.

    Args:
        settings: level, format and colours.
        stream: where lines go; standard output by default.
    """
    global _output
    stream = stream or sys.stdout
    if settings.format == "json":
        render: Render = render_json
    else:
        render = Console(colors=_wants_colors(stream, no_color=settings.no_color))
    _output = Output(LEVELS[settings.level], render, Sink(stream))
    _route_libraries(_output.level)


def set_level(level: str) -> None:
    """Change the lowest level that is logged.

    Args:
        level: one of :data:`LEVELS`.
    """
    global _output
    _output = _output._replace(level=LEVELS[level])
    _route_libraries(_output.level)


def add_secret(secret: str) -> None:
    """Mask a value wherever it appears in later lines; values under 8 characters are not masked."""
    _output.sink.add_secret(secret)


def reset() -> None:
    """Undo :func:`configure`, for tests.

    Warnings and errors go to standard error again, since commands print their results on standard output.
    """
    global _output
    _remove_handlers()
    _output = _unconfigured()


def _unconfigured() -> Output:
    return Output(LEVELS["warn"], Console(colors=False), Sink())


def _wants_colors(stream: TextIO, *, no_color: bool) -> bool:
    """Return whether to use colours: only on a terminal, and not if NO_COLOR is set (no-color.org)."""
    return not no_color and not os.environ.get("NO_COLOR") and stream.isatty()


_output = _unconfigured()


# --- the libraries' own lines


_BURST: Final = 20


class _Allowance:
    """How many lines a logger may write now: up to ``_BURST``, and one more each second.

    Attributes:
        withheld: how many more there were since the last line.
    """

    __slots__ = ("_at", "_lines", "withheld")

    def __init__(self) -> None:
        self._at, self._lines = time.monotonic(), float(_BURST)
        self.withheld = 0

    def take(self) -> bool:
        now = time.monotonic()
        self._lines, self._at = min(_BURST, self._lines + now - self._at), now
        if self._lines < 1:
            self.withheld += 1
            return False
        self._lines -= 1
        return True


class _Handler(logging.Handler):
    """Writes the lines of sanic, grpc, botocore, asyncio and Python's warnings to the same stream.

    Any peer can make a library complain about each of its requests: a logger's warnings and errors are
    limited, and the next line has their number (``withheld``).
    """

    def __init__(self) -> None:
        super().__init__()
        self._allowances: dict[str, _Allowance] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Render and write one record."""
        try:
            fields: dict[str, Any] = {"logger": record.name}
            if record.levelno >= logging.WARNING:
                allowance = self._allowances.setdefault(record.name, _Allowance())
                if not allowance.take():
                    return
                if allowance.withheld:
                    fields["withheld"], allowance.withheld = allowance.withheld, 0
            if record.exc_info:
                fields["exc_info"] = record.exc_info
            _output.write(_level_name(record.levelno), record.getMessage(), fields)
        except Exception:  # noqa: BLE001 - a library's broken format string is not our failure
            self.handleError(record)


def _level_name(number: int) -> str:
    for name in ("error", "warn", "info", "debug"):
        if number >= LEVELS[name]:
            return name
    return "trace"


def _route_libraries(level: int) -> None:
    """Route standard-library logging to our stream; from info down, one level less verbose than ours."""
    shown = {LEVELS["trace"]: logging.DEBUG, LEVELS["debug"]: logging.INFO, LEVELS["error"]: logging.ERROR}
    root = logging.getLogger()
    _remove_handlers()
    root.addHandler(_Handler())
    root.setLevel(shown.get(level, logging.WARNING))
    for name in _NO_DEBUG:
        logging.getLogger(name).setLevel(max(root.level, logging.INFO))
    logging.captureWarnings(True)


def _remove_handlers() -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
