"""A clock that is set back: nothing waits for it to come round again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from harness.keys import EC, Server, drop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY_S = 86_400.0
HOURLY = msgspec.structs.replace(EC, rotate_every_s=3600.0)


async def test_a_clock_set_back_keeps_no_key_waiting(server: Callable[..., Server]) -> None:
    """The wait is never longer than max-age from now; the key that signed goes on signing."""
    one = await server().start()
    first = one.signing
    one.time.advance(86_400)
    made = await one.keys.generate()
    one.time.now -= 86_400
    again = await one.again().start()
    assert again.signing == first
    await again.pass_time(301)
    assert again.signing == made.key_id


async def test_after_a_clock_was_set_back_a_new_key_is_still_the_newest(
    server: Callable[..., Server],
) -> None:
    """Else it would never sign."""
    one = await server().start()
    one.time.now -= 86_400
    made = await one.keys.generate()
    await one.pass_time(301)
    assert one.signing == made.key_id


async def test_a_clock_set_back_hides_no_revocation(server: Callable[..., Server], bucket: Path) -> None:
    """A key confirmed in what is the future now was not confirmed since the read began."""
    one = await server().start()
    old, made = one.signing, (await one.keys.generate()).key_id
    one.time.now -= DAY_S
    drop(bucket, old)
    await one.pass_time(200)
    assert one.signing == old
    await one.pass_time(31)
    assert one.signing == made
    assert one.set_aside == [old]


async def test_a_clock_set_back_stops_no_rotation(server: Callable[..., Server]) -> None:
    """The next key signs within a period of the new time, and the old one ends as long after as ever."""
    one = await server(settings=HOURLY).start()
    first = one.signing
    one.time.now -= DAY_S
    await one.pass_time(1)
    for _ in range(3600 // 60):
        await one.pass_time(60)
    second = one.signing
    assert second not in ("", first)
    assert one.signers == [first, second]
    await one.pass_time(1200 + 300 + 300 + 1)
    assert first not in one.published


async def test_a_clock_set_back_keeps_no_retired_key_for_ever(server: Callable[..., Server]) -> None:
    """It goes when an expiry, max-age and the skew have passed by a clock that is never set."""
    one = await server(settings=HOURLY).start()
    first = one.signing
    await one.pass_time(3600 - 359)
    await one.pass_time(359)
    assert one.signing != first
    one.time.now -= DAY_S
    await one.pass_time(1200 + 300 + 300 - 1)
    assert first in one.published
    await one.pass_time(2)
    assert first not in one.published
    assert first not in one.private


async def test_a_clock_that_was_wrong_for_a_moment_shortens_nothing(server: Callable[..., Server]) -> None:
    """As on a machine that starts with a time of long ago: tokens live on, and caches still fill."""
    one = await server(settings=HOURLY).start()
    first = one.signing
    await one.pass_time(3600 - 359)
    await one.pass_time(359)
    made = await one.keys.generate()
    second = one.signing
    one.time.now -= 400 * DAY_S
    again = await one.again(settings=HOURLY).start()
    await again.pass_time(20)
    one.time.now += 400 * DAY_S
    await again.pass_time(270)
    assert again.signing == second
    await again.pass_time(11)
    assert again.signing == made.key_id
    await again.pass_time(1200 + 300 + 300 - 303)
    assert first in again.published
    await again.pass_time(3)
    assert first not in again.published


@pytest.mark.parametrize("back_s", [0.4, 0.9, 1.5])
async def test_a_clock_set_back_by_a_moment_makes_no_key_that_looks_older(
    server: Callable[..., Server], back_s: float
) -> None:
    """Within the second of the key that it follows, or just before it."""
    one = await server().start()
    one.time.now += 10.5
    await one.keys.generate()
    one.time.now -= back_s
    made = await one.keys.generate()
    assert (await one.keys.list_keys())[-1].key_id == made.key_id
    await one.pass_time(303)
    assert one.signing == made.key_id


async def test_a_clock_that_is_ahead_for_a_moment_ends_no_wait(server: Callable[..., Server]) -> None:
    """Two hours ahead for two seconds: a waiting key goes on waiting, and no retiring key is deleted."""
    one = await server(settings=HOURLY).start()
    first = one.signing
    await one.pass_time(3600 - 359)
    await one.pass_time(359)
    second, made = one.signing, (await one.keys.generate()).key_id
    one.time.now += 7200
    await one.pass_time(2)
    one.time.now -= 7200
    await one.pass_time(1)
    assert (one.signing, first in one.published, first in one.private) == (second, True, True)
    await one.pass_time(296)
    assert one.signing == second
    await one.pass_time(2)
    assert one.signing == made
    await one.pass_time(1200 + 300 + 300)
    assert first not in one.published


async def test_no_key_is_deleted_on_one_look(server: Callable[..., Server]) -> None:
    """A process that starts with a clock that is ahead looks again, half a minute later."""
    one = await server(settings=HOURLY).start()
    first = one.signing
    await one.pass_time(3600 - 359)
    await one.pass_time(359)
    one.time.now += 7200
    again = await one.again(settings=HOURLY).start()
    await again.pass_time(2)
    one.time.now -= 7200
    await again.pass_time(60)
    assert first in again.published
    assert first in again.private
