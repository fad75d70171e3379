"""Counts of what happens, as plain numbers; ``daemon.metrics`` turns them into metrics when they are read.

Nothing here knows Prometheus: its client takes microseconds for each change of a counter, and megabytes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

ISSUE_BOUNDS_S: Final = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""A signature takes 0.03 ms with ES256 and 0.6 ms with RSA-2048; larger keys sign in threads."""

CALL_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""A call of S3 takes tens of milliseconds, and is given up after seconds."""

NO_AUDIENCE: Final = "none"
LISTED_AUDIENCE: Final = "listed"
OTHER_AUDIENCE: Final = "other"
UNREAD_AUDIENCE: Final = "unread"
"""Classes of audiences: a label must not have a caller's text, of which there are arbitrarily many."""

ISSUED: Final = "issued"
PREVIEWED: Final = "previewed"
REFUSED: Final = "refused"
FAILED: Final = "failed"

_READ: Final = (NO_AUDIENCE, LISTED_AUDIENCE, OTHER_AUDIENCE)


class Histogram:
    """How often values were observed, by upper bound.

    Attributes:
        bounds: the upper bounds, ascending; a value that equals a bound is within it.
        counts: how many values are within each bound and above the one before; the last has all others.
        total: the sum of the values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class IssuerCounts:
    """What the issuer has done since its start.

    Attributes:
        requests: requests for tokens, by outcome and class of the audience.
        refusals: refused requests of any path, by the error's code.
        issue_s: how long issued tokens took, in seconds.
    """

    __slots__ = ("issue_s", "refusals", "requests")

    def __init__(self) -> None:
        # Zeros, so that a rate sees the first request of a kind. A Counter takes more time than a dict.
        self.requests = {
            **{(outcome, audience): 0 for outcome in (ISSUED, PREVIEWED) for audience in _READ},
            **{
                (outcome, audience): 0
                for outcome in (REFUSED, FAILED)
                for audience in (*_READ, UNREAD_AUDIENCE)
            },
        }
        self.refusals: Counter[str] = Counter()
        self.issue_s = Histogram(ISSUE_BOUNDS_S)

    def issued(self, audience: str, seconds: float) -> None:
        """Count an issued token."""
        self.requests[ISSUED, audience] += 1
        self.issue_s.observe(seconds)


class StoreCounts:
    """The calls of the JWKS's store since the start.

    Attributes:
        calls: by operation and outcome.
        took_s: how long each took, in seconds, whatever its outcome.
    """

    __slots__ = ("calls", "took_s")

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.took_s = Histogram(CALL_BOUNDS_S)

    def called(self, operation: str, outcome: str, seconds: float) -> None:
        """Count a call."""
        self.calls[operation, outcome] += 1
        self.took_s.observe(seconds)


def audience_class(audience: str | None, listed: Collection[str]) -> str:
    """Return the class of a requested audience.

    Args:
        audience: None if a token without ``aud`` is requested.
        listed: the setting issuer.audiences.
    """
    if audience is None:
        return NO_AUDIENCE
    return LISTED_AUDIENCE if audience in listed else OTHER_AUDIENCE
