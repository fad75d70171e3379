"""Kinds of setting: each parses text and TOML values into checked Python values, and says what it allows.

A kind refuses a value with a ``ValueError`` whose short reason neither repeats the value nor names the
setting: :mod:`tailbone.config.load` adds both, and omits the value if it is secret.
Plain classes and lazy imports, since ``tailbone --help`` loads this module.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tailbone.config.durations import format_duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TRUE = frozenset({"1", "t", "true", "yes", "on"})
_FALSE = frozenset({"0", "f", "false", "no", "off"})


class Kind:
    """One kind of value.

    Attributes:
        metavar: the placeholder for the value in ``--help``.
        name: what the value is, in messages: ``a port``.
        allowed: which values are allowed, in messages.
        choices: all allowed values, if there are few.
        is_list: the flag may be repeated, and the file contains a list.
        is_switch: the flag takes no value.
    """

    metavar = "TEXT"
    name = "text"
    allowed = ""
    choices: tuple[str, ...] = ()
    is_list = False
    is_switch = False

    @property
    def brief(self) -> str:
        """What is allowed, for docs/settings.md."""
        return self.allowed

    def convert(self, value: object) -> object:
        """Convert the text of a flag or variable, or a TOML *value* of any type."""
        return self.parse(value) if isinstance(value, str) else self.from_toml(value)

    def parse(self, text: str) -> object:
        """Parse *text*."""
        raise NotImplementedError

    def from_toml(self, value: object) -> object:
        """Convert a TOML *value* that is not text."""
        raise ValueError(f"is {_toml_name(value)}, not text in quotes")

    def show(self, value: object) -> str:
        """Format *value* as a person would write it; return empty text for None."""
        return "" if value is None else str(value)


def _toml_name(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a table"
    return "a date or time"


class Text(Kind):
    """Printable text that passes a check. Empty text is refused, or means *if_empty*."""

    def __init__(
        self,
        allowed: str,
        *,
        check: Callable[[str], str] | None = None,
        pattern: str = "",
        if_empty: str | None = None,
        metavar: str = "TEXT",
        name: str = "text",
    ) -> None:
        self.allowed, self.metavar, self.name = allowed, metavar, name
        self._check, self._pattern, self._if_empty = check, pattern, if_empty

    def parse(self, text: str) -> str:
        text = text.strip()
        if not text:
            if self._if_empty is not None:
                return self._if_empty
            raise ValueError("is empty")
        if not text.isprintable():
            raise ValueError("contains unprintable characters")
        if self._pattern and not re.fullmatch(self._pattern, text):
            raise ValueError(f"is not {self.name}")
        return self._check(text) if self._check else text


class Number(Kind):
    """A whole number between two bounds."""

    metavar = "NUMBER"

    def __init__(
        self, minimum: int, maximum: int, *, name: str = "a whole number", metavar: str = "NUMBER"
    ) -> None:
        self.name, self.metavar = name, metavar
        self._minimum, self._maximum = minimum, maximum
        self.allowed = f"{minimum} to {maximum}"

    def parse(self, text: str) -> int:
        text = text.strip()
        # int() alone also accepts "1_000" and digits of other scripts.
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
            raise ValueError(f"is not {self.name}")
        return self._bounded(int(text))

    def from_toml(self, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            return self._bounded(value)
        raise ValueError(f"is {_toml_name(value)}, not {self.name}")

    def _bounded(self, value: int) -> int:
        if not self._minimum <= value <= self._maximum:
            raise ValueError(f"is not {self.name}")
        return value


class OneOfNumbers(Number):
    """One of a few whole numbers."""

    def __init__(self, numbers: Sequence[int], *, name: str) -> None:
        self.choices = tuple(str(number) for number in numbers)
        super().__init__(min(numbers), max(numbers), name=name, metavar="|".join(self.choices))
        self._numbers = tuple(numbers)
        self.allowed = ", ".join(self.choices)

    def _bounded(self, value: int) -> int:
        if value not in self._numbers:
            raise ValueError(f"is not {self.name}")
        return value


class Switch(Kind):
    """True or false."""

    metavar = ""
    name = "true or false"
    allowed = "true, false"
    choices = ("true", "false")
    is_switch = True

    def parse(self, text: str) -> bool:
        word = text.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
        raise ValueError("is neither true nor false")

    def from_toml(self, value: object) -> bool:
        if isinstance(value, bool):
            return value
        raise ValueError(f"is {_toml_name(value)}, not true or false")

    def show(self, value: object) -> str:
        return "true" if value else "false"


class Duration(Kind):
    """A Go duration of at least *minimum_s* seconds; the value is seconds."""

    metavar = "DURATION"
    name = "a duration"

    def __init__(self, minimum_s: float) -> None:
        self._minimum_s = minimum_s
        self.allowed = f"a duration such as 20m, 1h30m or 500ms, {format_duration(minimum_s)} or longer"

    @property
    def brief(self) -> str:
        """Like ``allowed``, without the examples, which would fill the table's column."""
        return f"a duration, at least {format_duration(self._minimum_s)}" if self._minimum_s else "a duration"

    def parse(self, text: str) -> float:
        seconds = parse_duration(text.strip())
        if seconds < 0 <= self._minimum_s:
            raise ValueError("is negative")
        if seconds < self._minimum_s:
            raise ValueError("is too short")
        return seconds

    def from_toml(self, value: object) -> float:
        if type(value) is int and value == 0:
            return self.parse("0")
        if type(value) in (int, float):
            raise ValueError('has no unit: write text such as "20m"')
        raise ValueError(f"is {_toml_name(value)}, not text in quotes")

    def show(self, value: object) -> str:
        return format_duration(value) if isinstance(value, (int, float)) else ""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is {_toml_name(value)}, not text in quotes")  # noqa: TRY004 - see the module
    return value


class Choice(Kind):
    """One of a few words, in any case."""

    def __init__(self, *choices: str, metavar: str = "", synonyms: dict[str, str] | None = None) -> None:
        self.choices = choices
        self.metavar = metavar or "|".join(choices)
        self.allowed = ", ".join(choices)
        self._known = {choice.lower(): choice for choice in choices} | (synonyms or {})

    def parse(self, text: str) -> str:
        try:
            return self._known[text.strip().lower()]
        except KeyError:
            raise ValueError("is unknown") from None


class Words(Kind):
    """A list without duplicates; as text, words separated by commas or white space. *item* checks each."""

    is_list = True

    def __init__(self, item: Kind, *, at_least: int = 0) -> None:
        self.item, self._at_least = item, at_least
        self.metavar, self.choices = item.metavar, item.choices
        self.name = "a list"
        self.allowed = item.allowed

    def parse(self, text: str) -> tuple[str, ...]:
        return self._checked(re.split(r"[\s,]+", text.strip(", \t\r\n")) if text.strip(", \t\r\n") else [])

    def from_toml(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise ValueError(f"is {_toml_name(value)}, not a list")  # noqa: TRY004 - see the module
        return self._checked([_text(item) for item in value])

    def _checked(self, words: list[str]) -> tuple[str, ...]:
        checked: dict[str, None] = {}
        for word in words:
            try:
                refuse_wrapping(word, is_list=False)
                checked[str(self.item.parse(word))] = None
            except ValueError as error:
                raise BadItemError(word, str(error)) from None
        if len(checked) < self._at_least:
            raise ValueError("is empty")
        return tuple(checked)

    def show(self, value: object) -> str:
        return ", ".join(value) if isinstance(value, tuple) else ""


class BadItemError(ValueError):
    """One word of a list was refused.

    Attributes:
        item: the word.
    """

    def __init__(self, item: str, reason: str) -> None:
        super().__init__(reason)
        self.item = item


def refuse_wrapping(text: str, *, is_list: bool) -> None:
    """Refuse *text* in which a shell, an env file or JSON has left quotes, brackets or white space.

    ``docker run --env-file`` keeps quotes, and secrets created from files keep their line break.

    Raises:
        ValueError: the text is in quotes, is JSON in place of a list, or begins or ends with white space.
    """
    if not is_list and text.strip() != text:
        raise ValueError("begins or ends with a space or a line break: remove it")
    words = text.strip()
    if is_list and re.match(r"\{|\[(?![0-9a-fA-F:.%]*:[0-9a-fA-F:.%]*\])", words):
        raise ValueError("is JSON: write the words separated by commas")
    if len(words) > 1 and words[0] == words[-1] and words[0] in "\"'":
        raise ValueError("is in quotes: remove them")
