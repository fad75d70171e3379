"""Reconciler: one change at a time, under the folder's lock, and the steps that its writer carries out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from harness.keys import EC, START, FakeTime, document, kids

from tailbone.errors import KeyStateError, TailboneError
from tailbone.keys.plan import WriteRecord
from tailbone.keys.reconciler import LOCK_S, Reconciler, new_signing_key
from tailbone.keys.record import KeyRecord, Origin, Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tailbone.keys.observer import Observer
    from tailbone.keys.plan import Step
    from tailbone.keys.view import View


@pytest.fixture
def one(observer: Callable[..., Observer]) -> Observer:
    return observer()


@pytest.fixture
def reconciler(one: Observer, time: FakeTime) -> Reconciler:
    return Reconciler(one, sleep=time.sleep)


async def test_the_first_key_is_generated_published_and_signs(
    one: Observer, reconciler: Reconciler, bucket: Path
) -> None:
    """It signs at once, since no cache has a document without it."""
    await reconciler.reconcile(await one.read())
    assert one.ring.signing is not None
    assert kids(bucket) == [one.ring.signing.kid] == [f"tb-{START:.0f}"]
    assert document(bucket)["keys"][0]["alg"] == "ES256"


async def test_nothing_to_do_locks_nothing(one: Observer, reconciler: Reconciler) -> None:
    """The background loop would otherwise hold up every change of another process."""
    await reconciler.reconcile(await one.read())
    lock = one.folder.lock()
    assert lock.try_acquire()
    try:
        await reconciler.reconcile(await one.read(), timeout_s=0.0)
    finally:
        lock.release()


async def test_another_process_holds_the_lock(one: Observer, reconciler: Reconciler, time: FakeTime) -> None:
    """A change waits for it, then says that it can be tried again."""
    lock, began = one.folder.lock(), time.passed
    assert lock.try_acquire()
    try:
        with pytest.raises(KeyStateError, match="try again"):
            async with reconciler.writing():
                raise AssertionError
    finally:
        lock.release()
    assert LOCK_S <= time.passed - began < LOCK_S + 1
    async with reconciler.writing():
        assert not one.folder.lock().try_acquire()


async def test_changes_of_one_process_queue(reconciler: Reconciler) -> None:
    """The second one gives up when its time has passed, and the first goes on."""
    async with reconciler.writing():
        with pytest.raises(KeyStateError, match="another change of the keys"):
            async with reconciler.writing(0.0):
                raise AssertionError


async def test_a_process_without_the_bucket_may_not_write(
    observer: Callable[..., Observer], reconciler: Reconciler, one: Observer, time: FakeTime
) -> None:
    """The folder's keys are published elsewhere; the error says where, and the lock is free again."""
    await reconciler.reconcile(await one.read())
    reader = observer(publishes=False)
    with pytest.raises(KeyStateError) as error:
        async with Reconciler(reader, sleep=time.sleep).writing():
            raise AssertionError
    assert one.location in error.value.message
    async with reconciler.writing():
        pass


async def test_the_writer_sees_what_another_process_has_written(
    observer: Callable[..., Observer], reconciler: Reconciler, one: Observer, time: FakeTime
) -> None:
    """The folder is scanned under the lock."""
    await reconciler.reconcile(await one.read())
    other = observer()
    async with Reconciler(other, sleep=time.sleep).writing() as writer:
        assert writer.view().entries.keys() == one.snapshot.entries.keys() != set()


async def test_two_keys_of_one_second_have_different_kids(reconciler: Reconciler) -> None:
    """The kid of the second one has a random part."""
    async with reconciler.writing() as writer:
        first = await writer.add(await new_signing_key(EC.algorithm, EC.size), Origin.REQUESTED)
        second = await writer.add(await new_signing_key(EC.algorithm, EC.size), Origin.REQUESTED)
    assert first == f"tb-{START:.0f}"
    assert re.fullmatch(f"{first}-[0-9a-f]{{4}}", second)


async def test_the_kid_of_a_removed_key_is_not_used_again(one: Observer, reconciler: Reconciler) -> None:
    """Caches may still have the removed key under it."""
    async with reconciler.writing() as writer:
        first = await writer.add(await new_signing_key(EC.algorithm, EC.size), Origin.REQUESTED)
        one.folder.delete(one.snapshot.entries[first])
        await one.rescan()
        second = await writer.add(await new_signing_key(EC.algorithm, EC.size), Origin.REQUESTED)
    assert second.startswith(f"{first}-")


async def test_a_new_key_is_pending_on_disk(one: Observer, reconciler: Reconciler) -> None:
    """A kill after that leaves a key that the next start publishes."""
    async with reconciler.writing() as writer:
        kid = await writer.add(await new_signing_key(EC.algorithm, EC.size), Origin.REQUESTED)
    entry = one.folder.scan().entries[kid]
    assert entry.record is not None
    assert (entry.record.phase, entry.record.location) == (Phase.PENDING, one.location)


async def test_a_plan_without_an_end_is_a_bug(reconciler: Reconciler) -> None:
    """The writer does not repeat a step for ever, and its error asks for a report."""

    def planner(view: View) -> list[Step]:
        (entry,) = view.entries.values()
        record = KeyRecord.new(entry.thumbprint, Origin.FOUND, now=view.now)
        return [WriteRecord(kid=entry.kid, record=record, event="again")]

    async with reconciler.writing() as writer:
        await writer.add(await new_signing_key(EC.algorithm, EC.size), Origin.REQUESTED)
        with pytest.raises(TailboneError, match="please report this bug"):
            await writer.run_plan(planner)
