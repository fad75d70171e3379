"""keys.rotateEvery: a server that makes, activates, retires and prunes by itself."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import msgspec
from harness.keys import EC, START, Server

from tailbone.errors import StoreError
from tailbone.keys.record import KeyRecord
from tailbone.keys.signing_key import SigningKey

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

HOURLY = msgspec.structs.replace(EC, rotate_every_s=3600.0)


async def test_the_next_key_is_published_in_time_and_signs_when_the_hour_is_over(
    server: Callable[..., Server],
) -> None:
    """Made max-age and a minute before, so that it has waited when its turn comes."""
    one = await server(settings=HOURLY).start()
    first = one.signing
    await one.pass_time(3600 - 361)
    assert one.published == [first]
    await one.pass_time(2)
    assert len(one.published) == 2
    assert one.signing == first
    (info,) = [info for info in await one.keys.list_keys() if info.key_id != first]
    assert info.next_change == ("signs", START + 3600)
    await one.pass_time(358)
    assert one.signing == first
    await one.pass_time(1)
    assert one.signing == one.published[1]


async def test_a_retired_key_is_pruned_when_its_last_token_has_expired(server: Callable[..., Server]) -> None:
    """Not before; and its private half is deleted."""
    one = await server(settings=HOURLY).start()
    first = one.signing
    await one.pass_time(3600 - 359)
    await one.pass_time(359)
    assert one.signing != first
    (until,) = [info.next_change for info in await one.keys.list_keys() if info.key_id == first]
    assert until is not None
    assert until[0] == "removed"
    await one.pass_time(until[1] - one.time.now - 1)
    assert first in one.published
    await one.pass_time(2)
    assert first not in one.published
    assert first not in one.private
    assert one.set_aside == []


async def test_the_next_key_stays_pending_while_the_store_is_away(server: Callable[..., Server]) -> None:
    """It is tried again, not made again; the old key goes on signing."""
    one = await server(settings=HOURLY).start()
    first = one.signing
    assert one.store is not None
    one.store.fail(StoreError("away"))
    for _ in range(20):
        await one.pass_time(600)
    assert one.signing == first
    assert len(one.private) == 2
    one.store.recover()
    await one.pass_time(60)
    assert len(one.published) == 2


async def test_days_of_rotation_keep_few_keys_and_always_one_that_signs(
    server: Callable[..., Server],
) -> None:
    """And restarts in between change nothing."""
    one = await server(settings=HOURLY).start()
    signed = {one.signing}
    for step in range(24 * 12):
        await one.pass_time(300)
        assert one.signing in one.published
        signed.add(one.signing)
        if step % 50 == 0:
            one = await one.again(settings=HOURLY).start()
    assert 20 <= len(signed) <= 26
    assert len(one.published) <= 3
    assert one.private == sorted(one.published)


async def test_a_change_does_not_wait_for_the_next_key_to_be_made(
    server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large RSA key takes seconds: the folder is not locked meanwhile."""
    one = await server(settings=HOURLY).start()
    other = (await one.keys.generate()).key_id
    await one.pass_time(301)
    one.time.advance(3600 - 359)
    begun, go = threading.Event(), threading.Event()
    make = SigningKey.generate

    def slow(*what: Any, **how: Any) -> SigningKey:
        begun.set()
        assert go.wait(10)
        return make(*what, **how)

    monkeypatch.setattr(SigningKey, "generate", slow)
    rotating = asyncio.ensure_future(one.keys.tick())
    assert await asyncio.to_thread(begun.wait, 10)
    assert one.signing == other
    first = one.published[0]
    await one.keys.remove(first)
    assert not rotating.done()
    go.set()
    await rotating
    assert len(one.private) == 2


async def test_the_table_says_when_a_key_retires(server: Callable[..., Server]) -> None:
    """An hour after it began to sign."""
    one = await server(settings=HOURLY).start()
    (info,) = await one.keys.list_keys()
    assert info.next_change == ("retires", START + 3600)


async def test_the_table_says_when_an_old_key_can_go(server: Callable[..., Server]) -> None:
    """Without rotation nothing removes it, and until its last token has expired nobody should."""
    one = await server().start()
    first = one.signing
    await one.keys.generate()
    await one.pass_time(301)
    before, after = await one.keys.list_keys()
    state = KeyRecord.from_json((one.folder / f"{first}.state.json").read_bytes())
    assert (before.key_id, before.state, before.next_change) == (
        first,
        "retiring",
        ("removable", state.ends_at),
    )
    assert state.ends_at == one.time.now + 1200 + 300 + 300
    assert (after.state, after.next_change) == ("active", None)
