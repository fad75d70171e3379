"""Remove: requests to remove keys."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from harness.keys import EC, ObservedDisk, Server, drop
from harness.problems import texts
from harness.waiting import until_async

from tailbone.errors import (
    StoreDeniedError,
    StoreError,
    StoreOutcomeUnknownError,
    UnknownKeyError,
)
from tailbone.files import ProcessLock
from tailbone.jwks import publisher as publisher_module
from tailbone.keys.signing_key import SigningKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def test_generate_and_remove_old_leaves_no_gap(server: Callable[..., Server]) -> None:
    """What people script today: the new key signs at once, its wait not over, with a warning."""
    one = await server().start()
    old = one.signing
    new = (await one.keys.generate()).key_id
    left = await one.keys.remove(old)
    assert [info.key_id for info in left] == [new]
    assert one.signing == new
    assert one.published == [new]
    assert one.private == [new]
    assert any("signs at once" in line for line in one.log.of("warning"))


async def test_removing_a_successor_brings_the_retiring_key_back(server: Callable[..., Server]) -> None:
    """It is published still, and loses its end."""
    one = await server().start()
    old = one.signing
    new = (await one.keys.generate()).key_id
    await one.pass_time(301)
    assert one.signing == new
    await one.keys.remove(new)
    assert one.signing == old
    assert await one.states() == {old: "active"}


async def test_the_signing_key_has_stopped_before_the_document_loses_it(
    server: Callable[..., Server],
) -> None:
    """At the moment of the write the ring holds another key already."""
    one = await server().start()
    old = one.signing
    await one.keys.generate()
    assert one.store is not None
    signing: list[str] = []
    one.store.before = lambda call: signing.append(one.signing) if call == "write" else None
    await one.keys.remove(old)
    assert signing
    assert old not in signing


async def test_a_signature_under_way_in_a_thread_is_made_before_the_document_loses_its_key(
    server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its token would be issued and never verify."""
    one = await server(settings=msgspec.structs.replace(EC, algorithm="RS256", size=3072)).start()
    key = one.keys.ring.require()
    begun, go = threading.Event(), threading.Event()
    sign = SigningKey._sign

    def slow(which: SigningKey, data: bytes) -> bytes:
        if data == b"data":
            begun.set()
            assert go.wait(10)
        return sign(which, data)

    monkeypatch.setattr(SigningKey, "_sign", slow)
    signing = asyncio.ensure_future(key.sign(b"data"))
    assert await asyncio.to_thread(begun.wait, 10)
    # A file that was touched is read again.
    os.utime(one.folder / f"{key.kid}.private.jwk", (1, 1))
    at_write: list[bool] = []
    assert one.store is not None
    one.store.before = lambda call: at_write.append(signing.done()) if call == "write" else None
    removing = asyncio.ensure_future(one.keys.remove(key.kid))
    await until_async(lambda: not one.signing)
    go.set()
    await removing
    assert at_write == [True]
    assert len(await signing) == 384


async def test_removing_the_last_key_stops_service_until_a_generate(server: Callable[..., Server]) -> None:
    """Nothing is made behind the operator's back; a new key then signs at once, the document being empty."""
    one = await server().start()
    assert await one.keys.remove(one.signing) == ()
    assert one.published == []
    await one.pass_time(400)
    assert one.private == []
    assert texts(one.keys.reasons()) == [
        "keys: there is no key that can sign: make one with  tailbone keys generate"
    ]
    made = await one.keys.generate()
    assert made.state == "active"
    assert one.signing == made.key_id


async def test_a_removal_that_the_store_fails_after_the_trial_write_is_finished_later(
    server: Callable[..., Server],
) -> None:
    """The operator wants the key gone: it signs no longer, and leaves the JWKS as soon as that can be."""
    one = await server().start()
    old, new = one.signing, (await one.keys.generate()).key_id
    assert one.store is not None
    one.store.fail(StoreError("503"), "write")
    with pytest.raises(StoreOutcomeUnknownError, match="no longer signs") as caught:
        await one.keys.remove(old)
    assert caught.value.detail == "503"
    assert (one.signing, one.published) == (new, [old, new])
    one.store.recover()
    await one.keys.sync()
    assert (one.published, one.private) == ([new], [new])


async def test_a_remove_of_unknown_outcome_is_finished_later(server: Callable[..., Server]) -> None:
    """The key signs no longer, since it may be gone from the JWKS; the next good read ends it."""
    one = await server().start()
    old = one.signing
    await one.keys.generate()
    assert one.store is not None
    one.store.break_down("write", StoreOutcomeUnknownError("reset"), applied=False)
    with pytest.raises(StoreOutcomeUnknownError):
        await one.keys.remove(old)
    assert one.signing != old
    assert old in one.published
    one.store.recover()
    await one.keys.sync()
    assert old not in one.published
    assert old not in one.private


@pytest.mark.parametrize("kid", ["", "nope", "../../etc/passwd", "tb-1795518230.private", "\0", "a/b"])
async def test_an_unknown_kid_removes_nothing(server: Callable[..., Server], kid: str) -> None:
    """It is looked up, never made into a path."""
    one = await server().start()
    with pytest.raises(UnknownKeyError):
        await one.keys.remove(kid)
    assert one.private == [one.signing]


async def test_a_foreign_key_can_be_removed_by_name(server: Callable[..., Server]) -> None:
    """Nobody drops it otherwise; the owner finds it revoked."""
    one = await server("one").start()
    two = await server("two").start()
    left = await one.keys.remove(two.private[0])
    assert [info.key_id for info in left] == [one.signing]
    assert one.published == [one.signing]


async def test_a_removal_does_not_wait_for_a_generation(
    server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is made before the folder is locked."""
    one = await server().start()
    old = (await one.keys.generate()).key_id
    begun, go = threading.Event(), threading.Event()
    make = SigningKey.generate

    def slow(*what: Any, **how: Any) -> SigningKey:
        begun.set()
        assert go.wait(10)
        return make(*what, **how)

    monkeypatch.setattr(SigningKey, "generate", slow)
    generating = asyncio.ensure_future(one.keys.generate())
    assert await asyncio.to_thread(begun.wait, 10)
    await one.keys.remove(old)
    assert not generating.done()
    go.set()
    made = await generating
    assert one.published == [one.signing, made.key_id]


async def test_at_every_moment_of_a_removal_a_key_signs(server: Callable[..., Server]) -> None:
    """Here, and in another process on the folder that reads it after each change of a file."""
    disk = ObservedDisk()
    one = await server(disk=disk).start()
    other = await one.again().start()
    old = one.signing
    disk.observe = other.keys.tick
    made = await one.keys.generate()
    await one.keys.remove(old)
    assert one.signers == other.signers == [old, made.key_id]


async def test_a_removal_that_the_store_refuses_changes_nothing(server: Callable[..., Server]) -> None:
    """It is found out before another key signs in its place."""
    one = await server().start()
    old = one.signing
    await one.keys.generate()
    before = {path: path.read_bytes() for path in one.folder.iterdir()}
    assert one.store is not None
    one.store.fail(StoreDeniedError("no"), "probe", "write")
    with pytest.raises(StoreDeniedError):
        await one.keys.remove(old)
    assert one.signers == [old]
    assert {path: path.read_bytes() for path in one.folder.iterdir()} == before


async def test_the_successor_is_one_that_the_document_holds(
    server: Callable[..., Server], bucket: Path
) -> None:
    """One that somebody has just taken out of it signs nothing, however new it is."""
    one = await server().start()
    old, kept = one.signing, (await one.keys.generate()).key_id
    one.time.advance(1)
    taken = (await one.keys.generate()).key_id
    drop(bucket, taken)
    await one.keys.remove(old)
    assert one.signers == [old, kept]


@pytest.mark.parametrize("damage", ["cut short", "readable by everybody"])
async def test_a_key_whose_files_cannot_be_used_is_removed_for_good(
    server: Callable[..., Server], damage: str
) -> None:
    """Its files go to removed/. Even if they are repaired, they never sign again."""
    one = await server().start()
    old, made = one.signing, (await one.keys.generate()).key_id
    path = one.folder / f"{old}.private.jwk"
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[:40])
    else:
        path.chmod(0o644)
    await one.keys.tick()
    listed = {info.key_id: (info.state, info.foreign) for info in await one.keys.list_keys()}
    assert listed == {old: ("faulty", False), made: ("active", False)}
    await one.keys.remove(old)
    assert one.published == [made]
    assert (one.private, one.set_aside) == ([made], [old])


async def test_a_key_of_which_nothing_can_be_read_goes_although_the_outcome_was_unknown(
    server: Callable[..., Server],
) -> None:
    """The document says which key it was, so that a later read knows that it is still there."""
    one = await server().start()
    old, made = one.signing, (await one.keys.generate()).key_id
    for half in ("private.jwk", "state.json"):
        (one.folder / f"{old}.{half}").write_bytes(b"{")
    await one.keys.tick()
    assert one.store is not None
    one.store.break_down("write", StoreOutcomeUnknownError("reset"), applied=False)
    with pytest.raises(StoreOutcomeUnknownError):
        await one.keys.remove(old)
    one.store.recover()
    assert one.published == [old, made]
    await one.pass_time(60)
    assert one.published == [made]
    assert (one.private, one.set_aside) == ([made], [old])


async def test_a_remove_in_the_moment_in_which_another_key_may_sign_leaves_no_gap(
    server: Callable[..., Server],
) -> None:
    """The wait of the next key is over, and nothing has been done about it yet."""
    one = await server().start()
    old, made = one.signing, (await one.keys.generate()).key_id
    one.time.advance(300)
    await one.keys.remove(old)
    assert one.signers == [old, made]


async def test_a_change_that_waited_for_another_is_over_in_time_too(
    server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing counts from its own start: neither the read nor the trial write."""
    one = await server().start()
    assert one.store is not None
    lock = ProcessLock(one.folder / ".lock")
    assert lock.try_acquire()
    before = one.time.passed
    sleep = one.time.sleep

    async def until_late(seconds: float) -> None:
        await sleep(seconds)
        if one.time.passed - before > 19.9:
            lock.release()

    def away(call: str) -> None:
        if one.time.passed - before < 23 or call == "probe":
            raise StoreError("away")

    one.store.before = away

    monkeypatch.setattr(publisher_module, "_LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr(one.time, "sleep", until_late)
    with pytest.raises(StoreError, match="away"):
        await one.keys.remove(one.signing)
    assert 24 <= one.time.passed - before <= 25
