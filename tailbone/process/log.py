"""The log: lines of text or JSON on one stream, from our own code and from the libraries.

A line of ours goes through one function and one write: no standard-library logging in between. The
line of a token is written for every request, so it must stay cheap (about 6 µs).
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

import msgspec

from tailbone.text import MARKS, MASK, escape, redact

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence
    from types import ModuleType

    _Render = Callable[[Any, str, MutableMapping[str, Any]], bytes]

LEVELS = {"trace": 5, "debug": 10, "info": 20, "warn": 30, "error": 40}
"""Our levels, as numbers of the standard library's logging."""

_NAMES = {"warning": "warn", "critical": "error", "fatal": "error", "exception": "error"}
# Their debug lines hold the headers of signed requests.
_TALKATIVE = (
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
_SHORTEST_SECRET = 8


class LogSettings(Protocol):
    """What :func:`configure` needs of the settings."""

    @property
    def level(self) -> str:
        """One of :data:`LEVELS`."""

    @property
    def format(self) -> str:
        """``console`` or ``json``."""

    @property
    def no_color(self) -> bool:
        """No colours, whatever the stream is."""


class Logger(Protocol):
    """What a logger can do: an event in few words, and the facts as fields.

    ``exc_info=True``, or an exception, adds a traceback.
    """

    def trace(self, event: str, **fields: Any) -> Any:
        """What only a search for a fault in the network needs."""

    def debug(self, event: str, **fields: Any) -> Any:
        """What only a search for a fault needs."""

    def info(self, event: str, **fields: Any) -> Any:
        """What happens in normal life."""

    def warn(self, event: str, **fields: Any) -> Any:
        """What a person should look at."""

    def warning(self, event: str, **fields: Any) -> Any:
        """The same as warn."""

    def error(self, event: str, **fields: Any) -> Any:
        """What did not work."""

    def exception(self, event: str, **fields: Any) -> Any:
        """An error with the traceback of the exception in hand."""

    def bind(self, **fields: Any) -> Logger:
        """A logger whose lines all have these fields."""


def _import_structlog() -> ModuleType:
    """Import structlog, and keep it from importing rich.

    It would, for coloured tracebacks that are not used here, and 60 ms and 4 MB.
    """
    hide = "rich" not in sys.modules
    if hide:
        sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog
    finally:
        if hide:
            del sys.modules["rich"]
    return structlog


_structlog = _import_structlog()


def get_logger(*, strict: bool = False, **fields: Any) -> Logger:
    """A logger; what :func:`configure` sets holds for it, also when it is called later.

    Args:
        strict: a line that cannot be written raises OSError: for what must not happen without its
            line. Other loggers count lost lines, and say how many when lines go through again.
        fields: fields of all its lines.
    """
    return cast("Logger", _structlog.get_logger("strict" if strict else "", **fields))


def configure(settings: LogSettings, *, stream: TextIO | None = None, secrets: Sequence[str] = ()) -> None:
    """Set up the log of this process, before its first line.

    Args:
        settings: level, format and colours.
        stream: where lines go; standard output by default.
        secrets: values that are masked wherever they turn up, whatever their form; short ones are left out,
            since masking them would tear up other words.
    """
    stream = stream or sys.stdout
    if settings.format == "json":
        render: _Render = _render_json
    else:
        render = _Console(colors=_wants_colors(stream, no_color=settings.no_color))
    sink = _Sink(stream, render, secrets)
    _install(LEVELS[settings.level], sink, cache=True)
    _route_libraries(LEVELS[settings.level], sink)


def _install(level: int, sink: _Sink, *, cache: bool) -> None:
    def logger_factory(strict: str = "") -> _Writer:
        return _Writer(sink, strict=bool(strict))

    _structlog.configure(
        processors=[sink.render],
        wrapper_class=_filtering(level),
        logger_factory=logger_factory,
        cache_logger_on_first_use=cache,
    )


def _filtering(level: int) -> type:
    """A logger class whose methods below *level* do nothing; structlog itself knows no trace."""
    base: type = _structlog.make_filtering_bound_logger(max(level, logging.DEBUG))

    def trace(self: Any, event: str, **fields: Any) -> Any:
        return self._proxy_to_logger("trace", event, **fields)

    def nothing(self: Any, event: str, **fields: Any) -> None:
        """Below the level."""

    return type("TailboneLogger", (base,), {"trace": trace if level <= LEVELS["trace"] else nothing})


# --- rendering: one line from one event


def _plain(value: object) -> object:
    """What JSON has no form for, as text."""
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return str(value)


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def _render_json(_writer: Any, method: str, event: MutableMapping[str, Any]) -> bytes:
    """One line of JSON: time, level and event first, then the fields."""
    line = {"time": datetime.now(UTC), "level": _NAMES.get(method, method), "event": event.pop("event", "")}
    if "exc_info" in event and (text := _traceback(event.pop("exc_info"))):
        event["exception"] = text
    if "level" in event or "time" in event:
        event = {f"{key}_" if key in line else key: value for key, value in event.items()}
    line.update(event)
    try:
        return _encode(line) + b"\n"
    except (TypeError, ValueError, RecursionError):
        # A log line never fails on what it is about: halves of surrogate pairs, odd keys, cycles.
        return (
            _encode({str(key): value if key == "time" else ascii(value) for key, value in line.items()})
            + b"\n"
        )


def _traceback(found: object) -> str:
    """The traceback that ``exc_info`` asks for, without local variables: they may hold secrets."""
    error = sys.exception() if found is True else found[1] if isinstance(found, tuple) else found
    return "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""


class _Console:
    """Lines for people: time, level, event, ``field=value``."""

    def __init__(self, *, colors: bool) -> None:
        red, yellow, green, dim, cyan, off = (
            ("\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[2m", "\x1b[36m", "\x1b[0m") if colors else ("",) * 6
        )
        by_level = {"trace": dim, "debug": dim, "info": green, "warn": yellow, "error": red}
        self._levels = {level: f"Z{off} {color}{level.upper():5}{off} " for level, color in by_level.items()}
        self._before, self._key, self._off = dim, cyan, off
        self._second, self._clock = -1, ""

    def __call__(self, _writer: Any, method: str, event: MutableMapping[str, Any]) -> bytes:
        text = escape(str(event.pop("event", "")))
        line = self._time() + self._levels[_NAMES.get(method, method)] + text
        found = event.pop("exc_info", None)
        for key, value in event.items():
            name = key if key.isprintable() else escape(key)
            line += f" {self._key}{name}{self._off}={_shown(value)}"
        if found:
            line = "\n".join([line, *(escape(row) for row in _traceback(found).splitlines())])
        return f"{line}\n".encode("utf-8", "backslashreplace")

    def _time(self) -> str:
        """UTC to the millisecond; the date and the second are written once a second."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._clock = self._before + time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._clock}.{int((now - second) * 1000):03}"


def _shown(value: object) -> str:
    if isinstance(value, list | tuple | set | frozenset):
        # What lies deeper is shown by Python, which knows cycles.
        return f"[{', '.join(_shown(item if isinstance(item, str) else _plain(item)) for item in value)}]"
    text = value if isinstance(value, str) else str(_plain(value))
    if text and text.isprintable() and " " not in text and '"' not in text and "=" not in text:
        return text
    return '"' + escape(text).replace('"', '\\"') + '"'


def _wants_colors(stream: TextIO, *, no_color: bool) -> bool:
    """Colours are for terminals; NO_COLOR, non-empty, refuses them for every program (no-color.org)."""
    return not no_color and not os.environ.get("NO_COLOR") and stream.isatty()


# --- writing


class _Sink:
    """Where lines end: masks secrets, writes, counts what could not be written."""

    def __init__(self, stream: TextIO | None, render: _Render, secrets: Sequence[str] = ()) -> None:
        self._stream = stream
        self.render = render
        long_enough = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
        self._secrets = tuple(long_enough)
        self._marks = tuple(mark.encode() for mark in (*MARKS, *long_enough))
        self.lost = 0

    def write(self, line: bytes) -> None:
        """Write one line.

        Raises:
            OSError: the stream does not take it.
        """
        # Plain searches: 0.2 µs for a line without a mark, where one regular expression takes 3.
        for mark in self._marks:
            if mark in line:
                line = self._masked(line)
                break
        stream = self._stream or sys.stderr
        binary = getattr(stream, "buffer", None)
        if binary is None:
            stream.write(line.decode("utf-8", "replace"))
            stream.flush()
            return
        binary.write(line)
        binary.flush()

    def _masked(self, line: bytes) -> bytes:
        text = redact(line.decode("utf-8", "replace"))
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text.encode()


class _Writer:
    """What structlog calls with a finished line."""

    def __init__(self, sink: _Sink, *, strict: bool) -> None:
        write = sink.write if strict else lambda line: _write_or_count(sink, line)
        self.trace = self.debug = self.info = self.warning = self.error = self.critical = write
        self.warn = self.exception = self.fatal = self.msg = self.log = write


def _write_or_count(sink: _Sink, line: bytes) -> None:
    """A full disk or a dead reader of the log must not take the process with it."""
    try:
        if sink.lost:
            gap = sink.render(None, "warn", {"event": "log lines could not be written", "lost": sink.lost})
            sink.write(gap)
            sink.lost = 0
        sink.write(line)
    except OSError:
        sink.lost += 1


# --- the libraries' own lines


class _Handler(logging.Handler):
    """Takes the lines of sanic, grpc, botocore, asyncio and Python's warnings to the same stream."""

    def __init__(self, sink: _Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Render and write one record."""
        try:
            event: dict[str, Any] = {"event": record.getMessage(), "logger": record.name}
            if record.exc_info:
                event["exc_info"] = record.exc_info
            line = self._sink.render(None, _level_name(record.levelno), event)
        except Exception:  # noqa: BLE001 - a library's broken format string is not our failure
            self.handleError(record)
            return
        _write_or_count(self._sink, line)


def _level_name(number: int) -> str:
    for name in ("error", "warn", "info", "debug"):
        if number >= LEVELS[name]:
            return name
    return "trace"


def _route_libraries(level: int, sink: _Sink) -> None:
    """Send standard-library logging to *sink*: warnings always, more where ours shows more."""
    shown = {LEVELS["trace"]: logging.DEBUG, LEVELS["debug"]: logging.INFO, LEVELS["error"]: logging.ERROR}
    root = logging.getLogger()
    _remove_handlers()
    root.addHandler(_Handler(sink))
    root.setLevel(shown.get(level, logging.WARNING))
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(root.level, logging.INFO))
    logging.captureWarnings(True)


def _remove_handlers() -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)


def reset() -> None:
    """Go back to the log of a process that never called :func:`configure`, as tests need it.

    Warnings and errors show on standard error: commands that print results do so on standard output.
    """
    _remove_handlers()
    _install(LEVELS["warn"], _Sink(None, _Console(colors=False)), cache=False)


reset()
