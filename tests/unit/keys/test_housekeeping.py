"""Housekeeping: the folder in line with the document, and never to its cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from harness.keys import EC, JWKS, START, Server, drop, write_document
from harness.settings import key_settings

from tailbone.errors import KeyStateError, StoreError
from tailbone.jwks.document import Document
from tailbone.keys.folder import Entry
from tailbone.keys.housekeeping import Housekeeping, housekeeping_of
from tailbone.keys.record import KeyRecord, Origin, Removal
from tailbone.keys.signing_key import SigningKey
from tailbone.keys.view import Read, View

if TYPE_CHECKING:
    from collections.abc import Callable


LOCATION = "s3://bucket/jwks.json"
KEYS = [SigningKey.generate("key", algorithm="ES256", size=0, created_at=START) for _ in range(3)]


def entry_of(kid: str, record: KeyRecord | None, *, fault: str = "") -> Entry:
    """Return a key of the folder, the n-th of ``KEYS`` for the kid "kn"."""
    key = KEYS[int(kid.removeprefix("k"))].renamed(kid, created_at=START + int(kid.removeprefix("k")))
    return Entry(
        kid=kid, files=(Path(f"{kid}.private.jwk"),), key=None if fault else key, record=record, fault=fault
    )


def record_of(origin: Origin = Origin.REQUESTED) -> KeyRecord:
    """Return the record of a key that has just been generated or found."""
    return KeyRecord.new("t", origin, now=START, location=LOCATION)


def published() -> KeyRecord:
    """Return the record of a key that has been published."""
    return record_of().published(LOCATION, now=START, signs_from=START)


def folder_view(*entries: Entry, in_document: tuple[str, ...] = ()) -> View:
    """Return a view of a folder, some of whose keys are in the document."""
    keys = [entry.key.public_jwk() for entry in entries if entry.key and entry.kid in in_document]
    return View(
        now=START,
        monotonic=0.0,
        location=LOCATION,
        settings=key_settings(),
        entries={entry.kid: entry for entry in entries},
        last_read=Read(Document({"keys": keys})),
    )


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (entry_of("k1", published()), Housekeeping(moved=("k1",), kept=("k0",))),
        (entry_of("k1", None), Housekeeping(moved=("k1",), kept=("k0",))),
        (entry_of("k1", record_of(Origin.FOUND)), Housekeeping(moved=("k1",), kept=("k0",))),
        (entry_of("k1", record_of()), Housekeeping(kept=("k0", "k1"))),
        (entry_of("k1", record_of(Origin.FIRST)), Housekeeping(kept=("k0", "k1"))),
        (
            entry_of("k1", published().removing(Removal.DELETE, now=START)),
            Housekeeping(kept=("k0",), finished=("k1",)),
        ),
        (
            entry_of("k1", None, fault="is cut off"),
            Housekeeping(kept=("k0",), faulty=(("k1", "is cut off"),)),
        ),
        (
            entry_of("k1", published().removing(Removal.DELETE, now=START), fault="is cut off"),
            Housekeeping(kept=("k0",), finished=("k1",)),
        ),
    ],
    ids=["unpublished", "no record", "found", "new", "first", "removing", "faulty", "removing and faulty"],
)
def test_housekeeping_moves_only_usable_keys_that_have_left_the_document(
    entry: Entry, expected: Housekeeping
) -> None:
    """New keys stay, removals are finished, and faulty files are left alone."""
    view = folder_view(entry_of("k0", published()), entry, in_document=("k0",))
    assert housekeeping_of(view, force=False) == expected


def test_housekeeping_keeps_published_keys_oldest_first() -> None:
    """In the order of their creation, whatever the order of their files."""
    view = folder_view(
        *(entry_of(kid, published()) for kid in ("k2", "k0", "k1")), in_document=("k0", "k1", "k2")
    )
    assert housekeeping_of(view, force=False) == Housekeeping(kept=("k0", "k1", "k2"))


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (None, "is missing"),
        (Document.empty(), "is empty"),
        (
            Document({"keys": [{"kty": "RSA", "kid": "other"}]}),
            "holds none of this folder's keys",
        ),
    ],
    ids=["missing", "empty", "foreign"],
)
def test_housekeeping_refuses_a_document_that_looks_wrong(document: Document | None, why: str) -> None:
    """With force it moves the keys all the same."""
    view = folder_view(entry_of("k0", published()), entry_of("k1", record_of()))
    view = msgspec.structs.replace(view, last_read=Read(document))
    with pytest.raises(KeyStateError) as caught:
        housekeeping_of(view, force=False)
    ending = "nothing was moved; --force would move 1 of 2 keys"
    assert caught.value.message == f"the published JWKS {why}: {ending}"
    assert housekeeping_of(view, force=True) == Housekeeping(moved=("k0",), kept=("k1",))


@pytest.mark.parametrize("document", [None, Document.empty()])
def test_a_wrong_document_does_not_matter_if_no_key_would_be_moved(document: Document | None) -> None:
    """A folder whose only key is new."""
    view = msgspec.structs.replace(folder_view(entry_of("k0", record_of())), last_read=Read(document))
    assert housekeeping_of(view, force=False) == Housekeeping(kept=("k0",))


async def tidy(one: Server, *, force: bool = False) -> Housekeeping:
    """Housekeeping as the command does it: in a separate process, which does not generate a first key."""
    other = one.again()
    assert other.store is not None
    assert one.store is not None
    other.store.before = one.store.before
    try:
        return await other.keys.housekeeping(force=force)
    finally:
        await other.keys.close()


async def test_keys_no_longer_published_are_moved_not_deleted(
    server: Callable[..., Server], bucket: Path
) -> None:
    """And a running server sees that within one look at the folder."""
    longer = msgspec.structs.replace(EC, expiry_s=7200.0)
    one = await server(settings=longer).start()
    old, new = one.signing, (await one.keys.generate()).key_id
    drop(bucket, old)
    done = await tidy(one)
    assert (done.moved, done.kept) == ((old,), (new,))
    assert one.set_aside == [old]
    assert sorted(path.name for path in (one.folder / "removed").iterdir()) == [
        f"{old}.private.jwk",
        f"{old}.public.jwk",
        f"{old}.state.json",
    ]
    await one.keys.tick()
    assert one.signing == new
    assert "" not in one.signers


async def would_tidy(one: Server, *, force: bool = False) -> Housekeeping:
    """A dry run as the command does it."""
    other = one.again()
    try:
        return await other.keys.housekeeping(force=force, dry_run=True)
    finally:
        await other.keys.close()


def everything_in(*folders: Path) -> dict[Path, tuple[int, int, bytes]]:
    """All files and folders below some, with their modes, times and content."""
    found = [*folders, *(path for folder in folders for path in folder.rglob("*"))]
    return {
        path: (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in found
    }


@pytest.mark.parametrize("taken_over", [True, False], ids=["a server's folder", "one of the Go program"])
async def test_a_dry_run_changes_nothing(
    server: Callable[..., Server], bucket: Path, taken_over: bool
) -> None:
    """It only says what would be moved and finished, whatever of it is half done."""
    one = await server().start()
    old, new = one.signing, (await one.keys.generate()).key_id
    await one.keys.close()
    drop(bucket, old)
    if taken_over:
        (one.folder / f"{new}.public.jwk").unlink()
    else:
        for path in one.folder.iterdir():
            if path.suffix != ".jwk":
                path.unlink()
    (one.folder / ".half.tmp").write_text("half wri")
    before = everything_in(one.folder, bucket)
    done = await would_tidy(one)
    assert everything_in(one.folder, bucket) == before
    assert done == Housekeeping(moved=(old,), kept=(new,), dry_run=True)


async def test_a_removal_that_was_cut_short(server: Callable[..., Server], bucket: Path) -> None:
    """A dry run tells of it, and housekeeping finishes it."""
    one = await server().start()
    old, new = one.signing, (await one.keys.generate()).key_id
    await one.keys.close()
    path = one.folder / f"{old}.state.json"
    record = KeyRecord.from_json(path.read_bytes())
    path.write_bytes(record.removing(Removal.DELETE, now=START).to_json())
    assert await would_tidy(one) == Housekeeping(kept=(new,), finished=(old,), dry_run=True)
    assert await tidy(one) == Housekeeping(kept=(new,), finished=(old,))
    assert (one.private, one.published) == ([new], [new])


@pytest.mark.parametrize("force", [False, True])
async def test_a_dry_run_refuses_what_housekeeping_refuses(
    server: Callable[..., Server], bucket: Path, force: bool
) -> None:
    """And shows what force would do."""
    one = await server().start()
    await one.keys.close()
    write_document(bucket, {"keys": []})
    if force:
        assert (await would_tidy(one, force=True)).moved == (one.private[0],)
    else:
        with pytest.raises(KeyStateError, match="is empty"):
            await would_tidy(one)


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "is missing"), ({"keys": []}, "is empty"), ("foreign", "holds none of this folder's keys")],
)
async def test_a_document_that_looks_wrong_moves_nothing(
    server: Callable[..., Server], bucket: Path, content: dict[str, object] | str | None, why: str
) -> None:
    """Unless forced."""
    one = await server().start()
    old = one.signing
    if content is None:
        (bucket / JWKS).unlink()
    elif content == "foreign":
        write_document(bucket, {"keys": [{"kty": "RSA", "kid": "x", "n": "AQ", "e": "AQAB"}]})
    else:
        write_document(bucket, content)  # type: ignore[arg-type]
    with pytest.raises(KeyStateError, match=why):
        await tidy(one)
    assert one.private == [old]
    done = await tidy(one, force=True)
    assert done.moved == (old,)
    assert one.set_aside == [old]


@pytest.mark.parametrize("damage", [b'{"keys":', None])
async def test_an_unreadable_document_moves_nothing(
    server: Callable[..., Server], bucket: Path, damage: bytes | None
) -> None:
    """Cut short, or not to be had; forced, all keys are moved, and the document is left as it is."""
    one = await server().start()
    old = one.signing
    assert one.store is not None
    if damage is None:
        one.store.fail(StoreError("away"))
    else:
        write_document(bucket, damage)
    before = (bucket / JWKS).read_bytes()
    with pytest.raises(StoreError):
        await tidy(one)
    assert one.private == [old]
    await tidy(one, force=True)
    assert one.set_aside == [old]
    assert (bucket / JWKS).read_bytes() == before


async def test_a_key_on_its_way_in_is_finished_not_moved(server: Callable[..., Server]) -> None:
    """A pending first key was never published: housekeeping publishes it."""
    one = server()
    await one.keys.start()
    one.time.advance(10)
    await server("two").start()
    done = await tidy(one)
    assert done.moved == ()
    assert one.private[0] in one.published


async def test_an_empty_folder_stays_empty(server: Callable[..., Server]) -> None:
    """Housekeeping makes no first key."""
    one = server()
    one.folder.mkdir()
    done = await tidy(one)
    assert (done.moved, done.kept, one.private) == ((), (), [])


async def test_the_settings_of_housekeeping_are_not_the_servers(server: Callable[..., Server]) -> None:
    """It cuts no wait short, retires nothing, and confirms nothing."""
    slow = msgspec.structs.replace(EC, max_age_s=1200.0, activate_after_s=1200.0, rotate_every_s=7200.0)
    one = await server(settings=slow).start()
    await one.keys.generate()
    before = {path: path.read_bytes() for path in one.folder.glob("*.state.json")}
    done = await tidy(one)
    assert (done.moved, len(done.kept)) == ((), 2)
    assert {path: path.read_bytes() for path in one.folder.glob("*.state.json")} == before
    await one.pass_time(301)
    assert one.signing == done.kept[0]


async def test_files_that_cannot_be_used_are_named_and_left(server: Callable[..., Server]) -> None:
    """What is damaged may be all that is left of a key."""
    one = await server().start()
    await one.keys.generate()
    kid = one.private[1]
    path = one.folder / f"{kid}.private.jwk"
    path.write_bytes(path.read_bytes()[:40])
    done = await tidy(one)
    assert done.faulty == ((kid, "the private half is not a JSON object; was it cut short?"),)
    assert path.exists()
