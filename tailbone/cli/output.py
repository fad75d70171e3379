"""Results in the forms of ``-o``: JSON and YAML."""

from __future__ import annotations

import re
from typing import Any

# What YAML 1.1 and 1.2 both read as text: no number, no date, none of its words and signs.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+-]*")
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})


def render(value: Any, form: str) -> str:
    """Write *value* for a program to read.

    Args:
        value: dicts, lists, tuples, text, numbers, true, false and None.
        form: ``json``, one line; or ``yaml``.
    """
    if form == "json":
        import json

        return json.dumps(value)
    return "\n".join(_block(value))


def _block(value: Any) -> list[str]:
    """The lines of a YAML block; only as much YAML as results need, so that no library for it is needed."""
    lines: list[str] = []
    if isinstance(value, dict) and value:
        for key, item in value.items():
            if _is_block(item):
                lines.append(f"{_scalar(str(key))}:")
                lines += [f"  {line}" for line in _block(item)]
            else:
                lines.append(f"{_scalar(str(key))}: {_block(item)[0]}")
        return lines
    if isinstance(value, list | tuple) and value:
        for item in value:
            first, *rest = _block(item)
            lines.append(f"- {first}")
            lines += [f"  {line}" for line in rest]
        return lines
    return [_scalar(value)]


def _is_block(value: Any) -> bool:
    return isinstance(value, dict | list | tuple) and bool(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value
    import json

    # JSON's scalars are YAML's, and so are its empty list and object; but for JSON's pairs of escapes beyond
    # 16 bits, which YAML reads as two characters, and for raw control characters, which it refuses.
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(char: str) -> str:
    return char if char.isprintable() else f"\\U{ord(char):08x}"
