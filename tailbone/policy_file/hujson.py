"""Read HuJSON (JSON with comments and trailing commas), as Tailscale and Headscale write policies. Pure.

Strict in everything else, as Tailscale's own parser is: libraries for JSON5 accept more, and none keeps the
lines, which a linter must name.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Any, Final

import msgspec

_DEPTH: Final = 100
_SPACE: Final = re.compile(r"(?:[ \t\r\n]+|//[^\n]*\n|/\*.*?\*/)*", re.DOTALL)
# RFC 8259 sections 3, 6 and 7.
_SCALAR: Final = re.compile(
    r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"'
    r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![0-9.])"
    r"|(?:true|false|null)\b"
)


class Node(msgspec.Struct, frozen=True):
    """A value, and where it is.

    Attributes:
        value: the value in Python, whole.
        line: where it begins, counted from 1.
        members: of an object, by name; the last one counts if a name is repeated.
        items: of an array.
        repeated: the names of members that an object has more than once, and the lines of the later ones.
    """

    value: Any
    line: int
    members: dict[str, Node] = {}
    items: tuple[Node, ...] = ()
    repeated: tuple[tuple[str, int], ...] = ()


class HuJSONError(ValueError):
    """The text is not HuJSON.

    Attributes:
        line: where, counted from 1.
    """

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse(text: str) -> Node:
    """Read a whole document.

    Raises:
        HuJSONError: the text is not HuJSON.
    """
    reader = _Reader(text)
    node = reader.value(0)
    reader.skip_space()
    if reader.at < len(text):
        raise reader.error("something follows the end of the document")
    return node


class _Reader:
    """A position in a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self.at = 0

    def error(self, message: str) -> HuJSONError:
        return HuJSONError(self._line(), message)

    def _line(self) -> int:
        return bisect_right(self._breaks, self.at - 1) + 1

    def skip_space(self) -> None:
        """Skip white space and comments."""
        match = _SPACE.match(self._text, self.at)
        self.at = match.end() if match else self.at

    def value(self, depth: int) -> Node:
        """Read one value."""
        if depth > _DEPTH:
            raise self.error(f"more than {_DEPTH} levels are nested")
        self.skip_space()
        if self._takes("{"):
            return self._object(depth)
        if self._takes("["):
            return self._array(depth)
        return self._scalar()

    def _takes(self, char: str) -> bool:
        """Pass the next character if it is this one, and return whether it is."""
        if not self._text.startswith(char, self.at):
            return False
        self.at += 1
        return True

    def _scalar(self) -> Node:
        match = _SCALAR.match(self._text, self.at)
        if match is None:
            found = repr(self._text[self.at]) if self.at < len(self._text) else "the end of the file"
            raise self.error(f"expected a value, found {found}")
        try:
            value = msgspec.json.decode(match[0])
        except msgspec.MsgspecError as error:
            # As the server decodes it: numbers have limits, and text is Unicode.
            raise self.error(str(error)) from None
        node = Node(value, self._line())
        self.at = match.end()
        return node

    def _array(self, depth: int) -> Node:
        line, items = self._line(), []
        while not self._ends("]"):
            items.append(self.value(depth + 1))
            self._comma("]")
        return Node([item.value for item in items], line, items=tuple(items))

    def _object(self, depth: int) -> Node:
        line, repeated = self._line(), []
        members: dict[str, Node] = {}
        while not self._ends("}"):
            if not self._text.startswith('"', self.at):
                raise self.error("the name of a member must be in double quotes")
            name = self._scalar()
            if name.value in members:
                repeated.append((name.value, name.line))
            self.skip_space()
            if not self._takes(":"):
                raise self.error(f"expected a colon after the name {name.value!r}")
            members[name.value] = self.value(depth + 1)
            self._comma("}")
        whole = {name: member.value for name, member in members.items()}
        return Node(whole, line, members=members, repeated=tuple(repeated))

    def _ends(self, bracket: str) -> bool:
        self.skip_space()
        return self._takes(bracket)

    def _comma(self, bracket: str) -> None:
        """Pass the comma after an item; only the last one may lack it."""
        self.skip_space()
        if not self._takes(",") and not self._text.startswith(bracket, self.at):
            raise self.error(f"expected a comma or {bracket}")
