"""Generate and remove: what people ask for."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from harness.keys import EC, START, Careless, FakeTime, Server, document, drop, rings_of, write_document
from harness.problems import texts

from tailbone.errors import (
    BadParameterError,
    GenerationUnderWayError,
    KeyStateError,
    StoreDeniedError,
    StoreError,
    StoreOutcomeUnknownError,
    UnknownKeyError,
)
from tailbone.files import ProcessLock
from tailbone.jwks import publisher as publisher_module
from tailbone.jwks.document import Document
from tailbone.keys import lifecycle as lifecycle_module
from tailbone.keys.plan import Publish
from tailbone.keys.reconciler import Writer
from tailbone.keys.signing_key import SigningKey
from tailbone.keys.view import KeyInfo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def test_a_generated_key_is_published_at_once_and_signs_after_max_age(
    server: Callable[..., Server],
) -> None:
    """Caches that were filled just before have run out by then."""
    one = await server().start()
    first = one.signing
    one.time.advance(10)
    made = await one.keys.generate()
    assert (made.key_id, made.state, made.next_change) == (
        f"tb-{START + 10:.0f}",
        "published",
        ("signs", START + 310),
    )
    assert one.published == [first, made.key_id]
    await one.pass_time(299)
    assert one.signing == first
    await one.pass_time(2)
    assert one.signing == made.key_id


async def test_the_key_that_stops_signing_stays_published_and_gets_its_end_written(
    server: Callable[..., Server],
) -> None:
    """Longest expiry, max-age and five minutes after it stopped; without rotation it stays beyond that."""
    one = await server().start()
    first = one.signing
    await one.keys.generate()
    await one.pass_time(301)
    state = msgspec.json.decode((one.folder / f"{first}.state.json").read_bytes())
    assert state["ends_at"] == START + 301 + 1200 + 300 + 300
    await one.pass_time(10_000)
    assert await one.states() == {first: "retiring", one.signing: "active"}
    assert first in one.published


async def test_the_end_is_computed_from_the_longest_expiry_that_was_in_force(
    server: Callable[..., Server],
) -> None:
    """Tokens of an hour are out there although the last settings say a minute."""
    one = await server(settings=msgspec.structs.replace(EC, expiry_s=3600)).start()
    first = one.signing
    two = await one.again(settings=msgspec.structs.replace(EC, expiry_s=60)).start()
    await two.keys.generate()
    await two.pass_time(301)
    state = msgspec.json.decode((one.folder / f"{first}.state.json").read_bytes())
    assert state["ends_at"] == START + 301 + 3600 + 300 + 300


async def test_two_keys_of_one_second_have_two_kids(server: Callable[..., Server]) -> None:
    """The second gets four hex digits; the first keeps its files."""
    one = await server().start()
    made = await one.keys.generate()
    assert made.key_id.startswith(f"tb-{START:.0f}-")
    assert len(made.key_id) == len(f"tb-{START:.0f}-") + 4
    assert made.created_at == int(START)
    assert len(one.private) == 2


async def test_the_kid_of_a_removed_key_is_not_used_again(server: Callable[..., Server]) -> None:
    """Caches may hold the removed key under it."""
    one = await server().start()
    first = one.signing
    await one.keys.remove(first)
    made = await one.keys.generate()
    assert made.key_id != first


@pytest.mark.parametrize("prefix", ["my-app.2-x", ".hidden", "-", "tb-1795518230", "_"])
async def test_a_prefix_may_hold_dashes_and_dots(server: Callable[..., Server], prefix: str) -> None:
    """The time is read from the right; and a restart finds the key."""
    one = await server(settings=msgspec.structs.replace(EC, prefix=prefix)).start()
    again = await one.again().start()
    (info,) = await again.keys.list_keys()
    assert (info.key_id, info.created_at) == (f"{prefix}-{START:.0f}", int(START))
    assert again.signing == info.key_id


@pytest.mark.parametrize(
    ("algorithm", "size", "made"),
    [("RS256", 3072, ("RS256", 3072)), ("ES256", None, ("ES256", 256)), (None, 2048, ("ES256", 256))],
)
async def test_algorithm_and_size_can_be_asked_for(
    server: Callable[..., Server], algorithm: str | None, size: int | None, made: tuple[str, int]
) -> None:
    """Absent, the settings decide."""
    one = await server().start()
    info = await one.keys.generate(algorithm=algorithm, size=size)
    await one.pass_time(301)
    key = one.keys.ring.require()
    assert (key.kid, key.algorithm, key.size) == (info.key_id, *made)


@pytest.mark.parametrize(
    ("algorithm", "size"), [("EdDSA", None), ("RS256", 1024), ("RS256", 0), ("RS256", 2049)]
)
async def test_what_verifiers_would_refuse_is_not_made(
    server: Callable[..., Server], algorithm: str, size: int | None
) -> None:
    """The error lists what is allowed."""
    one = await server().start()
    with pytest.raises(BadParameterError, match="allowed are"):
        await one.keys.generate(algorithm=algorithm, size=size)
    assert len(one.private) == 1


async def test_a_generate_that_fails_leaves_no_pair(server: Callable[..., Server]) -> None:
    """Neither in the folder nor in the JWKS; the next one works."""
    one = await server().start()
    assert one.store is not None
    one.store.fail(StoreDeniedError("forbidden"), "write")
    with pytest.raises(StoreDeniedError):
        await one.keys.generate()
    assert one.private == [one.signing]
    assert list(one.folder.glob("*.state.json")) == [one.folder / f"{one.signing}.state.json"]
    one.store.recover()
    await one.keys.generate()
    assert len(one.published) == 2


async def test_a_write_that_was_taken_although_it_failed_is_found_by_reading(
    server: Callable[..., Server],
) -> None:
    """The connection is reset after the store took the write: the key is published, and generate succeeds."""
    one = await server().start()
    assert one.store is not None

    def after(call: str) -> None:
        if call == "write":
            one.store.recover()  # type: ignore[union-attr]
            raise StoreOutcomeUnknownError("reset")

    one.store.after = after
    made = await one.keys.generate()
    assert made.state == "published"
    assert one.published == [one.signing, made.key_id]


async def test_when_nothing_tells_whether_the_write_was_taken_a_later_read_decides_that_it_was(
    server: Callable[..., Server],
) -> None:
    """The pair stays until then, since its public half may be published."""
    one = await server().start()
    assert one.store is not None
    one.store.break_down("write", StoreOutcomeUnknownError("reset"), applied=True)
    with pytest.raises(StoreOutcomeUnknownError):
        await one.keys.generate()
    assert len(one.private) == 2
    one.store.recover()
    await one.keys.sync()
    assert sorted(await one.states()) == sorted(one.published) == one.private


async def test_when_nothing_tells_whether_the_write_was_taken_a_later_read_decides_that_it_was_not(
    server: Callable[..., Server],
) -> None:
    """Not before a minute has passed: the write may still be under way."""
    one = await server().start()
    assert one.store is not None
    one.store.break_down("write", StoreOutcomeUnknownError("reset"), applied=False)
    with pytest.raises(StoreOutcomeUnknownError):
        await one.keys.generate()
    one.store.recover()
    asked_for = one.time.passed
    while one.time.passed - asked_for < 20:
        await one.pass_time(5)
    assert len(one.private) == 2
    await one.pass_time(61)
    assert one.private == [one.signing]


async def test_a_change_is_over_within_30_seconds(server: Callable[..., Server]) -> None:
    """However the store fails."""
    one = await server().start()
    assert one.store is not None
    one.store.fail(StoreError("500"), "write")
    started = one.time.passed
    with pytest.raises(StoreError):
        await one.keys.generate()
    assert 10 < one.time.passed - started < 30


async def test_a_change_goes_on_when_its_caller_has_gone(server: Callable[..., Server]) -> None:
    """A client that hangs up leaves nothing half done."""
    one = await server().start()
    asked = asyncio.ensure_future(one.keys.generate())
    while len(one.private) < 2:
        await asyncio.sleep(0)
    asked.cancel()
    await one.keys.close()
    assert len(one.published) == 2
    assert asked.cancelled()


async def test_a_close_cuts_a_change_off_and_the_next_start_finishes_it(
    server: Callable[..., Server],
) -> None:
    """The store does not answer: the pair stays, since its public half may be published."""
    one = await server().start()
    assert one.store is not None
    inner, writing = one.store.inner, asyncio.Event()

    class Silent:
        location = inner.location
        read = inner.read
        close = inner.close

        async def write(self, path: str, data: bytes, *, etag: str | None, **how: str) -> str:
            await inner.write(path, data, etag=etag, **how)
            writing.set()
            return await asyncio.Event().wait()  # type: ignore[return-value]

    await one.keys.generate()
    one.store.inner = Silent()
    asked = asyncio.ensure_future(one.keys.generate())
    await writing.wait()
    await one.keys.close(grace_s=0.01)
    with pytest.raises(asyncio.CancelledError):
        await asked
    again = await one.again().start()
    assert len(again.published) == 3
    assert again.private == sorted(again.published)


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


async def test_a_removal_does_not_wait_for_other_processes_where_there_are_none(
    server: Callable[..., Server],
) -> None:
    """With another one on the folder it waits until that one has looked at the folder twice."""
    one = await server().start()
    await one.keys.generate()
    await one.keys.generate()
    began = one.time.passed
    await one.keys.remove(one.signing)
    assert one.time.passed == began
    other = await one.again().start()
    await one.keys.remove(one.signing)
    assert one.time.passed == began + 1
    await other.keys.close()
    await one.keys.remove(one.signing)
    assert one.time.passed == began + 1


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
    async with asyncio.timeout(10):
        while one.signing:
            await asyncio.sleep(0.01)
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


async def test_a_removal_that_the_store_fails_after_the_rehearsal_is_finished_later(
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


async def test_foreign_keys_and_unknown_members_survive_every_change(
    server: Callable[..., Server], bucket: Path
) -> None:
    """Also what this program understands nothing of."""
    foreign = {"kty": "OKP", "crv": "X25519", "kid": "../odd kid\n", "x": "AA", "note": {"a": [1, 2.5]}}
    no_kid = {"kty": "future", "kid": 7}
    write_document(bucket, {"title": "ours", "keys": [foreign, no_kid], "next": None})
    one = await server().start()
    made = await one.keys.generate()
    await one.keys.remove(made.key_id)
    content = document(bucket)
    assert (content["title"], content["next"], content["keys"][:2]) == ("ours", None, [foreign, no_kid])
    assert any("makes some verifiers refuse the whole set" in line for line in one.log.of("warning"))
    listed = [(info.key_id, info.foreign) for info in await one.keys.list_keys()]
    assert listed == [("", True), ("../odd kid\n", True), (one.private[0], False)]


async def test_at_most_100_keys_and_a_warning_from_10_on(server: Callable[..., Server], bucket: Path) -> None:
    """The hundredth is made, the next one refused."""
    foreign = [{"kty": "RSA", "kid": f"k{number}", "n": "AQ", "e": "AQAB"} for number in range(98)]
    write_document(bucket, {"keys": foreign})
    one = await server().start()
    assert any("99 keys" in line for line in one.log.of("warning"))
    await one.keys.generate()
    with pytest.raises(KeyStateError, match="at most 100"):
        await one.keys.generate()
    assert len(one.published) == 100
    assert len(one.private) == 2


async def test_the_kid_that_another_server_takes_meanwhile_is_given_up(
    server: Callable[..., Server], bucket: Path
) -> None:
    """Between the read and the write somebody publishes the same kid: this key gets another one."""
    one = await server("one").start()
    one.time.advance(10)
    assert one.store is not None
    taken = {"kty": "RSA", "kid": f"tb-{one.time.now:.0f}", "n": "AQ", "e": "AQAB"}

    def before(call: str) -> None:
        if call == "write" and len(document(bucket)["keys"]) == 1:
            write_document(bucket, {"keys": [*document(bucket)["keys"], taken]})

    one.store.before = before
    made = await one.keys.generate()
    assert made.key_id.startswith(f"{taken['kid']}-")
    assert one.published == [one.signing, taken["kid"], made.key_id]
    assert len(one.private) == 2


async def test_one_key_is_generated_at_a_time(server: Callable[..., Server]) -> None:
    """A second one is refused, and nothing of it is left; the next one works."""
    one = await server().start()
    first, *others = await asyncio.gather(*(one.keys.generate() for _ in range(4)), return_exceptions=True)
    assert isinstance(first, KeyInfo)
    assert [type(other) for other in others] == [GenerationUnderWayError] * 3
    assert one.published == [one.signing, first.key_id]
    await one.keys.generate()
    assert len(one.published) == len(one.private) == 3


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


async def test_a_store_that_ignores_conditions_is_found_before_the_first_change(
    server: Callable[..., Server], bucket: Path
) -> None:
    """Start and tokens go on; changes fail, and say which setting there is."""
    one = await server().start()
    again = one.again()
    assert again.store is not None
    again.store.inner = Careless(again.store.inner)
    before = document(bucket)
    await again.start()
    assert again.signing == one.signing
    with pytest.raises(StoreError, match=r"keys\.conditionalWrites = false"):
        await again.keys.generate()
    assert document(bucket) == before
    assert again.private == [one.signing]


async def test_on_a_store_that_ignores_conditions_no_key_signs_that_another_servers_first_key_replaced(
    server: Callable[..., Server], bucket: Path
) -> None:
    """Two first starts at once: both writes are taken, and only one key is in the JWKS."""
    one = server()
    assert one.store is not None
    theirs = {"keys": [{"kty": "RSA", "kid": "theirs", "n": "AQ", "e": "AQAB"}]}
    one.store.inner = Careless(one.store.inner)
    sleep = one.time.sleep

    async def replaced(seconds: float) -> None:
        write_document(bucket, theirs)
        await sleep(seconds)

    one.keys._publisher._sleep = replaced  # type: ignore[union-attr]
    await one.start()
    assert one.signing == ""
    assert any("ignores If-Match" in reason for reason in texts(one.keys.reasons()))
    assert document(bucket) == theirs


async def test_a_store_that_ignores_conditions_is_a_warning_and_a_note_at_once(
    server: Callable[..., Server],
) -> None:
    """The first key signs, and nobody has to ask for a change to find out."""
    one = server()
    assert one.store is not None
    one.store.inner = Careless(one.store.inner)
    await one.start()
    assert one.signing == one.private[0]
    (note,) = one.keys.notes()
    assert note.text.startswith("jwks: the store ignores If-Match")
    assert len([line for line in one.log.of("warning") if "ignores If-Match" in line]) == 1


async def test_the_only_writer_may_write_without_conditions(
    server: Callable[..., Server], bucket: Path, tmp_path: Path, time: FakeTime
) -> None:
    """keys.conditionalWrites = false says so; there is no probe then."""
    one = Server(
        tmp_path / "keys", bucket, time, settings=msgspec.structs.replace(EC, conditional_writes=False)
    )
    etags: list[str | None] = []
    assert one.store is not None
    inner = one.store.inner

    class Watched:
        location = inner.location
        read = inner.read
        close = inner.close

        async def write(self, path: str, data: bytes, *, etag: str | None, **how: str) -> str:
            etags.append(etag)
            return await inner.write(path, data, etag=etag, **how)

    one.store.inner = Watched()
    await one.start()
    await one.keys.generate()
    assert etags == ["*", "*"]


async def test_a_key_gone_from_the_document_is_not_put_back_by_a_change(
    server: Callable[..., Server], bucket: Path
) -> None:
    """A merge adds what is asked for, nothing else."""
    one = await server().start()
    old = one.signing
    drop(bucket, old)
    made = await one.keys.generate()
    assert one.published == [made.key_id]


async def test_at_no_moment_of_a_removal_nobody_signs(
    server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither here nor in another process on the folder, which looks whenever a file has changed."""
    one = await server().start()
    other = await one.again().start()
    old, rings = one.signing, rings_of(one)
    seen: list[str] = []

    async def look() -> None:
        await other.keys._reconciler.rescan()
        other.keys._reconciler.refresh()
        seen.append(other.signing)

    carry_out = Writer._apply

    async def do(*step: Any) -> Any:
        done = await carry_out(*step)
        await look()
        return done

    monkeypatch.setattr(Writer, "_apply", do)
    made = await one.keys.generate()
    await one.keys.remove(old)
    await look()
    assert one.signing == other.signing == made.key_id
    assert "" not in rings
    assert set(seen) == {old, made.key_id}


async def test_a_removal_that_the_store_refuses_changes_nothing(server: Callable[..., Server]) -> None:
    """It is found out before another key signs in its place."""
    one = await server().start()
    old = one.signing
    await one.keys.generate()
    before = {path: path.read_bytes() for path in one.folder.iterdir()}
    rings = rings_of(one)
    assert one.store is not None
    one.store.fail(StoreDeniedError("no"), "probe", "write")
    with pytest.raises(StoreDeniedError):
        await one.keys.remove(old)
    assert set(rings) <= {old}
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
    rings = rings_of(one)
    await one.keys.remove(old)
    assert one.signing == kept
    assert taken not in rings


@pytest.mark.parametrize("damage", ["cut short", "readable by everybody"])
async def test_a_key_whose_files_cannot_be_used_is_removed_for_good(
    server: Callable[..., Server], damage: str
) -> None:
    """Its files go to removed/: mended, they sign nothing more."""
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
    rings = rings_of(one)
    await one.keys.remove(old)
    assert set(rings) == {made}


async def test_a_full_document_makes_room_before_it_takes_a_key() -> None:
    """One out and one in, with as many keys as there may be."""
    members = {"kty": "RSA", "n": "AQ", "e": "AQAB"}
    full = Document({"keys": [{**members, "kid": f"k{number}"} for number in range(100)]})
    key = SigningKey.generate("new", algorithm="ES256", size=0, created_at=int(START))
    edited = Publish(put=(key,), drop=(("k7", ""),)).edit(full)
    assert edited is not None
    assert len(edited.keys) == 100
    assert (edited.has_kid("new"), edited.has_kid("k7")) == (True, False)


async def test_a_change_that_waited_for_another_is_over_in_time_too(
    server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing counts from its own start: neither the read nor the rehearsal."""
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
    monkeypatch.setattr(one.keys._reconciler, "sleep", until_late)
    with pytest.raises(StoreError, match="away"):
        await one.keys.remove(one.signing)
    assert 24 <= one.time.passed - before <= 25


async def test_listing_does_not_wait_long_for_a_silent_store(
    server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is a copy, that is shown instead."""
    one = await server().start()
    assert one.store is not None
    monkeypatch.setattr(lifecycle_module, "_LIST_S", 0.05)
    asked = asyncio.Event()

    async def never(_path: str) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(one.store, "read", never)
    assert await one.states() == {one.signing: "active"}
    assert asked.is_set()


async def test_listing_without_the_store_gives_the_last_good_copy(server: Callable[..., Server]) -> None:
    """And fails only when there never was one."""
    one = await server("one").start()
    two = await server("two").start()
    assert two.store is not None
    two.store.fail(StoreError("away"))
    assert set(await two.states()) == {one.signing, two.private[0]}
    three = server("three")
    await three.keys.start()
    assert three.store is not None
    three.store.fail(StoreError("away"))
    with pytest.raises(StoreError):
        await three.keys.list_keys()
