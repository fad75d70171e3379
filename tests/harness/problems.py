"""What a server says is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tailbone.errors import Problem


def texts(problems: Iterable[Problem]) -> list[str]:
    """The texts alone."""
    return [problem.text for problem in problems]
