"""Measured numbers with their targets, and the table of them."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_HEADINGS = ("figure", "value", "baseline", "ratio", "bar", "reached", "")


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """The target of a figure.

    Attributes:
        most: at most this.
        least: at least this.
        of_ratio: the bar is for the ratio to the baseline, not for the value.
    """

    most: float | None = None
    least: float | None = None
    of_ratio: bool = False

    def holds(self, number: float) -> bool:
        """Return whether ``number`` reaches the bar."""
        return (self.most is None or number <= self.most) and (self.least is None or number >= self.least)

    def text(self, unit: str) -> str:
        """Return the bar as a person would write it."""
        unit = "× baseline" if self.of_ratio else unit
        sign, amount = ("≤", self.most) if self.most is not None else ("≥", self.least)
        return f"{sign} {amount:g} {unit}".rstrip()


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured number.

    Attributes:
        name: what was measured.
        value: the number, in ``unit``.
        unit: as a person writes it; empty for a plain count.
        baseline: the same number of what it is compared with, measured in the same run.
        ratio: value by baseline, where the rounds of a run give a better one than the two medians.
        bar: its target; None if it only explains other figures.
        note: spread, failures, what the baseline is.
    """

    name: str
    value: float
    unit: str = ""
    baseline: float | None = None
    ratio: float | None = None
    bar: Bar | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether it reaches its bar; None when it has none."""
        if self.bar is None:
            return None
        number = self.ratio if self.bar.of_ratio else self.value
        return number is not None and self.bar.holds(number)

    def row(self) -> tuple[str, ...]:
        """Return its row of the table."""
        return (
            self.name,
            f"{rounded(self.value)} {self.unit}".rstrip(),
            "" if self.baseline is None else f"{rounded(self.baseline)} {self.unit}".rstrip(),
            "" if self.ratio is None else f"{self.ratio:.3f}",
            "" if self.bar is None else self.bar.text(self.unit),
            {True: "yes", False: "NO", None: ""}[self.reached],
            self.note,
        )


def compared(
    name: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    unit: str,
    bar: Bar | None = None,
    note: str = "",
) -> Figure:
    """Compare round by round: what disturbs a round disturbs both of its halves.

    Args:
        name: of the figure.
        ours: one value per round.
        theirs: the baseline's, of the same rounds.
        unit: of both.
        bar: what the figure should reach.
        note: more for its note, which gives the spread of the rounds' ratios.
    """
    ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
    spread = f"{len(ratios)} rounds: {min(ratios):.3f} to {max(ratios):.3f}"
    return Figure(
        name=name,
        value=median(ours),
        unit=unit,
        baseline=median(theirs),
        ratio=median(ratios),
        bar=bar,
        note=f"{spread}; {note}" if note else spread,
    )


def rounded(number: float) -> str:
    """Format with three digits, or all digits before the point."""
    return f"{number:.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.3g}"


def table(figures: Iterable[Figure]) -> str:
    """Return the figures in columns."""
    return columns([_HEADINGS, *(figure.row() for figure in figures)])


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of equal length as lines of aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
