"""The cache of keys: how often it fetches, and what it answers meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from harness.forging import KEYS

from tailbone.verify.errors import KeysUnavailableError, UnknownTokenKeyError
from tailbone.verify.http import PublishedKeys
from tailbone.verify.key_cache import ABSENT_S, COOL_DOWN_S, MOST_ABSENT, STALE_S, KeyCache

if TYPE_CHECKING:
    from unit.verify.conftest import Clock

    from tailbone.verify.keys import VerifyingKey

MAX_AGE_S = 300.0


class Published:
    """What the issuer publishes, and how often it was fetched.

    Attributes:
        keys: by kid; None if the issuer cannot be reached.
        fetches: the number of fetches so far.
        max_age_s: what Cache-Control allows.
        go: a fetch waits for it.
    """

    def __init__(self) -> None:
        self.keys: dict[str, VerifyingKey] | None = {"rsa": KEYS["rsa"]}
        self.fetches = 0
        self.max_age_s = MAX_AGE_S
        self.go = threading.Event()
        self.go.set()

    def __call__(self) -> PublishedKeys:
        self.fetches += 1
        assert self.go.wait(10)
        if self.keys is None:
            raise KeysUnavailableError("unreachable")
        return PublishedKeys(dict(self.keys), self.max_age_s)


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def cache(published: Published, clock: Clock) -> KeyCache:
    return KeyCache(published, clock)


def key_of(cache: KeyCache, kid: str) -> VerifyingKey:
    """Do what a verifier does."""
    key = cache.get(kid)
    if key is None:
        under_way = cache.fetch_for(kid)
        if under_way is not None:
            under_way.result(10)
        key = cache.require(kid)
    return key


def refused(cache: KeyCache, kid: str) -> bool:
    try:
        key_of(cache, kid)
    except UnknownTokenKeyError:
        return True
    return False


def settle(cache: KeyCache) -> None:
    """Wait for the fetch under way."""
    under_way = cache._under_way
    if under_way is not None:
        under_way.result(10)


def test_fresh_keys_are_used_without_a_fetch(cache: KeyCache, published: Published, clock: Clock) -> None:
    """One fetch serves until max-age has passed."""
    assert key_of(cache, "rsa") is KEYS["rsa"]
    clock.now += MAX_AGE_S - 1
    assert key_of(cache, "rsa") is KEYS["rsa"]
    assert published.fetches == 1


@pytest.mark.parametrize(("max_age_s", "fresh_s"), [(0, 60), (59, 60), (600, 600), (86_400, 3600)])
def test_max_age_has_bounds(
    cache: KeyCache, published: Published, clock: Clock, max_age_s: float, fresh_s: float
) -> None:
    """Keys are fresh for at least a minute, at most an hour."""
    published.max_age_s = max_age_s
    key_of(cache, "rsa")
    clock.now += fresh_s - 0.5
    key_of(cache, "rsa")
    settle(cache)
    assert published.fetches == 1
    clock.now += 0.5
    key_of(cache, "rsa")
    settle(cache)
    assert published.fetches == 2


def test_stale_keys_are_used_while_they_are_fetched(
    cache: KeyCache, published: Published, clock: Clock
) -> None:
    """Nobody waits for the issuer after max-age, and one fetch is under way at a time."""
    key_of(cache, "rsa")
    clock.now += MAX_AGE_S
    published.go.clear()
    for _ in range(100):
        assert key_of(cache, "rsa") is KEYS["rsa"]
    published.go.set()
    settle(cache)
    assert published.fetches == 2


def test_stale_keys_end(cache: KeyCache, published: Published, clock: Clock) -> None:
    """While the issuer cannot be reached, the last keys are used for a day, and no longer."""
    key_of(cache, "rsa")
    published.keys = None
    clock.now += STALE_S - 1
    assert key_of(cache, "rsa") is KEYS["rsa"]
    settle(cache)
    clock.now += COOL_DOWN_S + 1
    with pytest.raises(KeysUnavailableError):
        key_of(cache, "rsa")


def test_a_revoked_key_ends_with_the_next_fetch(cache: KeyCache, published: Published, clock: Clock) -> None:
    """A fetch replaces the keys."""
    key_of(cache, "rsa")
    published.keys = {"ec": KEYS["ec"]}
    clock.now += MAX_AGE_S
    key_of(cache, "rsa")
    settle(cache)
    assert refused(cache, "rsa")
    assert key_of(cache, "ec") is KEYS["ec"]


def test_an_unknown_kid_is_fetched_after_the_cool_down(
    cache: KeyCache, published: Published, clock: Clock
) -> None:
    """A rotated key verifies at once if the last fetch is 30 s ago."""
    key_of(cache, "rsa")
    published.keys = dict(KEYS)
    clock.now += COOL_DOWN_S - 1
    assert refused(cache, "ec")
    assert published.fetches == 1
    clock.now += ABSENT_S
    assert key_of(cache, "ec") is KEYS["ec"]
    assert published.fetches == 2


def test_an_absent_kid_causes_no_second_fetch(cache: KeyCache, published: Published, clock: Clock) -> None:
    """For five minutes after a fetch that did not bring it."""
    published.max_age_s = 3600
    key_of(cache, "rsa")
    for _ in range(9):
        clock.now += COOL_DOWN_S
        assert refused(cache, "other")
    assert published.fetches == 2
    clock.now += ABSENT_S
    assert refused(cache, "other")
    assert published.fetches == 3


def test_absent_kids_are_bounded(cache: KeyCache, published: Published) -> None:
    """A flood of kids takes no memory."""
    key_of(cache, "rsa")
    for number in range(10 * MOST_ABSENT):
        assert refused(cache, str(number))
    assert len(cache._absent) == MOST_ABSENT


def test_a_flood_of_kids_makes_one_fetch_in_30_s(cache: KeyCache, published: Published, clock: Clock) -> None:
    """10,000 tokens with random kids from threads, within 30 s of the first fetch and after it."""
    key_of(cache, "rsa")
    with ThreadPoolExecutor(8) as pool:
        for burst in range(10):
            kids = [f"{burst}-{number}" for number in range(1000)]
            assert all(pool.map(lambda kid: refused(cache, kid), kids))
            clock.now += 2.9
        assert published.fetches == 1
        clock.now += 1.0
        assert all(pool.map(lambda kid: refused(cache, kid), [f"last-{number}" for number in range(1000)]))
    assert published.fetches == 2


def test_the_first_tokens_share_one_fetch(cache: KeyCache, published: Published) -> None:
    """Threads that come while it is under way wait for it."""
    published.go.clear()
    with ThreadPoolExecutor(16) as pool:
        keys = [pool.submit(key_of, cache, "rsa") for _ in range(16)]
        published.go.set()
        assert [key.result(10) for key in keys] == [KEYS["rsa"]] * 16
    assert published.fetches == 1


def test_without_keys_fetches_back_off(cache: KeyCache, published: Published, clock: Clock) -> None:
    """An issuer that cannot be reached at the start is asked after 1, 2, 4, 8, 16, then 30 s."""
    published.keys = None
    asked = []
    start = clock.now
    for _ in range(125):
        with pytest.raises(KeysUnavailableError):
            key_of(cache, "rsa")
        if published.fetches > len(asked):
            asked.append(clock.now - start)
        clock.now += 1
    assert asked == [0, 1, 3, 7, 15, 31, 61, 91, 121]
    published.keys = dict(KEYS)
    clock.now += COOL_DOWN_S
    assert key_of(cache, "rsa") is KEYS["rsa"]
