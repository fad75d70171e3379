"""Token sources: when they ask for a token, and what they return meanwhile."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tailbone.client.source import AsyncTokenSource, TokenSource
from tailbone.client.token import Token
from tailbone.errors import IssuerRefusedError, IssuerUnreachableError, TailboneError


class Clock:
    """A clock that the test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Issuer:
    """Issues numbered tokens, or fails; it can hold back its answers."""

    def __init__(self, life_s: float = 100.0) -> None:
        self.life_s = life_s
        self.asked = 0
        self.error: TailboneError | None = None
        self.answers = threading.Event()
        self.answers.set()

    def issue(self, audience: str = "", ttl: float | None = None) -> Token:
        self.asked += 1
        number = self.asked
        assert self.answers.wait(10)
        if self.error:
            raise self.error
        return Token(f"token-{number}", 0, self.life_s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def source(clock: Clock, issuer: Issuer) -> TokenSource:
    return TokenSource(issuer=issuer, clock=clock, min_ttl=10)


def renewed(source: TokenSource) -> None:
    """Wait for a renewal in the background."""
    renewing = source._renewing
    if renewing is not None:
        renewing.result(10)


def test_a_token_is_kept_for_the_first_part_of_its_life(
    source: TokenSource, issuer: Issuer, clock: Clock
) -> None:
    """Nothing is requested before 45 % of its life."""
    assert source.get() == "token-1"
    clock.now += 44
    assert source() == "token-1"
    assert issuer.asked == 1


@pytest.mark.parametrize(("jitter", "due_s"), [(0.0, 45.0), (0.5, 47.5), (1.0, 50.0)])
def test_programs_that_start_together_renew_at_different_times(
    issuer: Issuer, clock: Clock, jitter: float, due_s: float
) -> None:
    """From 45 to 50 % of the token's life."""
    source = TokenSource(issuer=issuer, clock=clock, jitter=lambda: jitter)
    source.get()
    assert source.due_in_s == due_s


@pytest.mark.parametrize(("jitter", "shares"), [(0.0, 0.5), (1.0, 1.0)])
def test_programs_that_fail_together_ask_again_at_different_times(
    issuer: Issuer, clock: Clock, jitter: float, shares: float
) -> None:
    """The longest pause doubles, from 2 to 60 s; half of it is random."""
    source = TokenSource(issuer=issuer, clock=clock, jitter=lambda: jitter)
    issuer.error = IssuerUnreachableError("away")
    for longest_s in (2, 4, 8, 16, 32, 60, 60):
        with pytest.raises(IssuerUnreachableError):
            source.get()
        assert source.due_in_s == longest_s * shares
        clock.now += source.due_in_s


@pytest.mark.parametrize(
    ("life_s", "due_s"),
    [(3600.0, 1800.0), (1800.0, 900.0), (1500.0, 600.0), (1200.0, 300.0), (1000.0, 500.0)],
)
def test_a_reserve_for_readers_that_keep_a_copy(clock: Clock, life_s: float, due_s: float) -> None:
    """15 min are left at each renewal, if a token lives for 20 min or more."""
    source = TokenSource(issuer=Issuer(life_s), clock=clock, reserve=900.0, jitter=lambda: 1.0)
    source.get()
    assert source.due_in_s == due_s


def test_it_is_renewed_in_the_background_at_half_of_its_life(
    source: TokenSource, issuer: Issuer, clock: Clock
) -> None:
    """The caller that notices does not wait."""
    source.get()
    clock.now += 50
    issuer.answers.clear()
    assert source.get() == "token-1"
    assert source.get() == "token-1"
    issuer.answers.set()
    renewed(source)
    assert source.get() == "token-2"
    assert issuer.asked == 2


def test_a_good_token_is_used_until_it_ends_while_the_issuer_is_away(
    source: TokenSource, issuer: Issuer, clock: Clock
) -> None:
    """Then the error is raised; the token that ended is never returned."""
    source.get()
    issuer.error = IssuerUnreachableError("away")
    for _ in range(40):
        clock.now += 1
        source.get()
    for _ in range(50):
        clock.now += 1
        assert source.get() == "token-1"
        renewed(source)
    clock.now += 1
    with pytest.raises(IssuerUnreachableError, match="away"):
        source.get()


def test_failed_requests_are_paused_for_longer_each_time(
    source: TokenSource, issuer: Issuer, clock: Clock
) -> None:
    """The pauses grow from 1 to 60 s; the error is repeated meanwhile."""
    issuer.error = IssuerUnreachableError("away")
    pauses = []
    for asked in range(1, 12):
        with pytest.raises(IssuerUnreachableError):
            source.get()
        with pytest.raises(IssuerUnreachableError):
            source.get()
        assert issuer.asked == asked
        pauses.append(source.due_in_s)
        clock.now += source.due_in_s
    assert 1 <= pauses[0] <= 2
    assert 30 <= pauses[-1] <= 60
    assert all(1 <= pause <= 60 for pause in pauses)


def test_a_token_of_30_minutes_is_renewed_while_readers_may_cache_it(clock: Clock) -> None:
    """azure-identity caches a file for 10 minutes, so more than that is always left."""
    issuer = Issuer(life_s=1800)
    source = TokenSource(issuer=issuer, clock=clock)
    for _ in range(20):
        source.get()
        clock.now += source.due_in_s
        assert source.left_s > 600
        source.get()
        renewed(source)
    assert issuer.asked == 21


def test_threads_share_one_request(source: TokenSource, issuer: Issuer) -> None:
    """Fifty threads without a token cause one request."""
    issuer.answers.clear()
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(source.get())) for _ in range(50)]
    for thread in threads:
        thread.start()
    issuer.answers.set()
    for thread in threads:
        thread.join(10)
    assert got == ["token-1"] * 50
    assert issuer.asked == 1


def test_a_token_that_lives_too_short_is_an_error(clock: Clock) -> None:
    """``min_ttl`` is a promise."""
    source = TokenSource(issuer=Issuer(life_s=5), clock=clock, min_ttl=10)
    with pytest.raises(IssuerRefusedError, match="valid for 5 s, less than min_ttl"):
        source.get()


def test_a_token_is_renewed_before_it_is_shorter_than_min_ttl(clock: Clock) -> None:
    """Half of its life may be too late."""
    source = TokenSource(issuer=Issuer(life_s=100), clock=clock, min_ttl=80)
    assert source.get() == "token-1"
    clock.now += 21
    assert source.get() == "token-2"


async def test_tasks_share_one_request(clock: Clock, issuer: Issuer) -> None:
    """A cancelled task does not cancel the request of the others."""
    source = AsyncTokenSource(issuer=issuer, clock=clock)
    issuer.answers.clear()
    first, *others = [asyncio.ensure_future(source.get()) for _ in range(20)]
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    issuer.answers.set()
    assert await asyncio.gather(*others) == ["token-1"] * 19
    assert await source() == "token-1"
    assert issuer.asked == 1


async def test_tasks_renew_in_the_background(clock: Clock, issuer: Issuer) -> None:
    """As threads do."""
    source = AsyncTokenSource(issuer=issuer, clock=clock)
    await source.get()
    clock.now += 50
    issuer.answers.clear()
    assert await source.get() == "token-1"
    issuer.answers.set()
    assert source._renewing is not None
    await source._renewing
    assert await source.get() == "token-2"


def test_a_token_is_not_shown(issuer: Issuer) -> None:
    """Neither its ``repr`` nor a traceback's contains the JWT."""
    assert "token-1" not in f"{issuer.issue()} {issuer.issue()!r}"
