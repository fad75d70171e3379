"""RateLimit: each node may make so many requests a second, after a burst of twice as many."""

from __future__ import annotations

from tailbone.server.rate_limit import RateLimit


class Clock:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def admitted(limit: RateLimit, node: str, requests: int = 1000) -> int:
    """Return how many of so many requests at one time are admitted."""
    return sum(limit.admits(node) for _ in range(requests))


def test_a_burst_is_twice_the_rate() -> None:
    """50 per second: 100 at once."""
    assert admitted(RateLimit(50, Clock()), "a") == 100


def test_after_the_burst_it_is_the_rate() -> None:
    """50 in each further second, however many are refused."""
    clock = Clock()
    limit = RateLimit(50, clock)
    admitted(limit, "a")
    counts = []
    for _ in range(3):
        clock.now += 1
        counts.append(admitted(limit, "a"))
    assert counts == [50, 50, 50]


def test_the_smallest_rate() -> None:
    """One per second, after two: a refused caller that waits for a second is admitted."""
    clock = Clock()
    limit = RateLimit(1, clock)
    assert admitted(limit, "a") == 2
    clock.now += 1
    assert admitted(limit, "a") == 1


def test_a_large_rate() -> None:
    """Rounding errors of many sums neither add nor cost a request."""
    assert admitted(RateLimit(10_000, Clock()), "a", 30_000) == 20_000


def test_a_node_does_not_use_up_the_requests_of_another() -> None:
    """Each has its own bucket."""
    limit = RateLimit(50, Clock())
    admitted(limit, "a")
    assert admitted(limit, "b") == 100


def test_zero_admits_all() -> None:
    """It turns the limit off."""
    assert admitted(RateLimit(0, Clock()), "a", 10_000) == 10_000


def test_idle_nodes_are_forgotten() -> None:
    """Many short-lived nodes do not fill the memory; nodes that are still limited stay so."""
    clock = Clock()
    limit = RateLimit(1, clock)
    for number in range(10_000):
        clock.now += 1
        admitted(limit, "busy", 3)
        limit.admits(f"node-{number}")
    assert len(limit._full_at) <= 1024
    assert not limit.admits("busy")
