"""Observer: what a process knows of its keys after reads of the folder and of the document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from harness.keys import EC, JWKS, START, FakeTime, write_document

from tailbone.errors import StoreError
from tailbone.jwks.document import Document
from tailbone.keys.record import OWN_LOCATION, KeyRecord, Origin
from tailbone.keys.signing_key import SigningKey
from tailbone.keys.view import REVOCATION_CONFIRM_S, Read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tailbone.keys.observer import Observer

KEY = SigningKey.generate("tb-1", algorithm="ES256", size=0, created_at=int(START))
EMPTY = Document({"keys": []})
SHOWN = Document({"keys": [KEY.public_jwk()]})


def add(observer: Observer, *, location: str = "") -> None:
    """Write the key's files, with the record of a key that signs."""
    where = location or observer.location
    record = KeyRecord.new(KEY.thumbprint, Origin.REQUESTED, now=START, location=where)
    record = record.published(where, now=START, signs_from=START)
    observer.folder.add(KEY, record.active(now=START, expiry_s=EC.expiry_s))


def logged(observer: Observer, *levels: str) -> list[str]:
    log: Any = observer.log
    return [event for level, event, _ in log.lines if level in levels]


async def test_the_ring_follows_from_the_folder(observer: Callable[..., Observer]) -> None:
    """It is replaced by ``refresh_ring`` after ``rescan``, with one line for each signing key."""
    one = observer()
    add(one)
    assert one.ring.signing is None
    await one.rescan()
    for _ in range(2):
        one.refresh_ring()
    assert one.ring.signing is not None
    assert one.ring.signing.kid == KEY.kid
    assert logged(one, "info") == ["signing key changed"]


async def test_a_process_without_a_store_only_reads_another_ones_keys(
    observer: Callable[..., Observer],
) -> None:
    """The records say where they are published; the folder stands in for the document."""
    one = observer(publishes=False)
    assert (one.location, one.read_only) == (OWN_LOCATION, False)
    add(one, location="s3://bucket/jwks.json")
    await one.rescan()
    assert (one.location, one.read_only) == ("s3://bucket/jwks.json", True)
    assert one.view().document == SHOWN
    assert await one.read() == Read(SHOWN)


async def test_a_key_is_revoked_by_two_reads(observer: Callable[..., Observer], time: FakeTime) -> None:
    """One read may come from a stale copy: the key counts as revoked when a later read lacks it, too."""
    one = observer()
    add(one)
    await one.rescan()
    one.view()
    one.record_read(EMPTY, time.monotonic())
    assert (one.misses_keys, one.view().revoked) == (True, frozenset())
    time.advance(REVOCATION_CONFIRM_S - 1)
    one.record_read(EMPTY, time.monotonic())
    assert one.view().revoked == frozenset()
    time.advance(1)
    one.record_read(EMPTY, time.monotonic())
    assert one.view().revoked == {KEY.kid}


async def test_a_read_that_shows_the_key_again_ends_the_count(
    observer: Callable[..., Observer], time: FakeTime
) -> None:
    """The two reads that revoke a key have none between them that shows it."""
    one = observer()
    add(one)
    await one.rescan()
    one.view()
    for document in (EMPTY, SHOWN, EMPTY):
        one.record_read(document, time.monotonic())
        time.advance(REVOCATION_CONFIRM_S)
    assert (one.misses_keys, one.view().revoked) == (True, frozenset())


def test_an_older_read_that_ends_later_is_ignored(observer: Callable[..., Observer], time: FakeTime) -> None:
    """The last good document is the one of the read that began last."""
    one, now = observer(), time.monotonic()
    one.record_read(SHOWN, now)
    one.record_read(EMPTY, now - 1)
    assert (one.last_good, one.read_at) == (SHOWN, now)


async def test_a_failed_read_changes_nothing(
    observer: Callable[..., Observer], bucket: Path, time: FakeTime
) -> None:
    """The last good document stays, however the store fails."""
    one = observer()
    write_document(bucket, {"keys": [KEY.public_jwk()]})
    await one.read()
    read_at = one.read_at
    time.advance(60)
    (bucket / JWKS).unlink()
    (bucket / JWKS).mkdir()
    with pytest.raises(StoreError):
        await one.read()
    assert (one.last_good, one.read_at) == (SHOWN, read_at)


async def test_a_lasting_problem_is_logged_once(observer: Callable[..., Observer]) -> None:
    """The folder is read twice a second."""
    one = observer()
    (one.folder.path / "tb-2.private.jwk").write_text("{}")
    for _ in range(3):
        await one.rescan()
    assert logged(one, "warning") == ["key cannot be used"]


async def test_the_saved_copy_serves_until_the_first_read(
    observer: Callable[..., Observer], bucket: Path
) -> None:
    """A server that starts while the store is unreachable has the document of its last run."""
    one = observer()
    one.folder.write_saved_copy(one.location, SHOWN)
    await one.load_saved_copy()
    assert (one.saved_copy, one.last_good) == (SHOWN, SHOWN)
    write_document(bucket, {"keys": []})
    await one.read()
    assert one.last_good == EMPTY


async def test_a_saved_copy_that_cannot_be_read_is_ignored(observer: Callable[..., Observer]) -> None:
    """It is a warning: the server starts without it."""
    one = observer()
    one.folder.write_saved_copy(one.location, SHOWN)
    (copy,) = one.folder.path.glob(".last*")
    copy.write_text("{")
    await one.load_saved_copy()
    assert one.saved_copy is None
    assert logged(one, "warning") == ["the saved copy of the JWKS is ignored"]


async def test_the_first_key_is_needed_until_one_is_published(observer: Callable[..., Observer]) -> None:
    """A removal of the last key stops service; it does not generate another one."""
    one = observer()
    assert one.view().needs_first_key
    add(one)
    await one.rescan()
    one.refresh_ring()
    one.folder.delete(one.snapshot.entries[KEY.kid])
    await one.rescan()
    one.refresh_ring()
    assert not one.view().needs_first_key
    assert one.ring.signing is None
