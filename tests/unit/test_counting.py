"""Counts, as plain numbers."""

from __future__ import annotations

import pytest

from tailbone.counting import Histogram, IssuerCounts, audience_class


def test_a_value_is_counted_within_the_first_bound_that_it_does_not_exceed() -> None:
    """Prometheus's ``le``: less than or equal."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.5, 99.0):
        histogram.observe(value)
    assert (histogram.counts, histogram.total) == ([2, 1, 2], 104.5)


@pytest.mark.parametrize(
    ("audience", "name"), [(None, "none"), ("a", "listed"), ("c", "other"), ("none", "other"), ("", "other")]
)
def test_an_audience_has_one_of_three_classes(audience: str | None, name: str) -> None:
    """A caller cannot choose the text of a label."""
    assert audience_class(audience, ("a", "b")) == name


def test_an_issued_token_is_counted_with_its_duration() -> None:
    """Both by one call."""
    counts = IssuerCounts()
    counts.issued("none", 0.0004)
    assert counts.requests["issued", "none"] == 1
    assert (sum(counts.issue_s.counts), counts.issue_s.total) == (1, 0.0004)


def test_the_requests_begin_with_zeros() -> None:
    """Otherwise a rate would miss the first request of a kind."""
    counts = IssuerCounts()
    assert set(counts.requests.values()) == {0}
    assert counts.requests.keys() >= {("issued", "none"), ("failed", "unread")}
