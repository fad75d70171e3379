"""Publisher: read, edit, write under a condition, read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from harness.keys import JWKS, Careless, FakeTime, Unreliable, document, kids, write_document
from harness.log import Lines

from tailbone.errors import (
    ForeignDocumentError,
    KeyStateError,
    StoreConflictError,
    StoreDeniedError,
    StoreError,
    StoreOutcomeUnknownError,
    StoreSettingsError,
    UnconditionalStoreError,
)
from tailbone.jwks.directory import DirectoryStore
from tailbone.jwks.document import Document
from tailbone.jwks.publisher import Publisher

if TYPE_CHECKING:
    from pathlib import Path

KEY = {"kty": "RSA", "kid": "k", "n": "AQ", "e": "AQAB"}


class World:
    """A publisher on a directory, on a clock that stands still."""

    def __init__(self, bucket: Path) -> None:
        self.bucket = bucket
        self.time = FakeTime()
        self.log = Lines()
        self.store = Unreliable(DirectoryStore(bucket))
        self.publisher = self.made(conditional=True)

    def made(self, *, conditional: bool) -> Publisher:
        """A publisher on this store and clock."""
        return Publisher(
            self.store,
            JWKS,
            max_age_s=300,
            conditional=conditional,
            log=self.log,  # type: ignore[arg-type]
            monotonic=self.time.monotonic,
            sleep=self.time.sleep,
        )

    async def add(self, kid: str = "k", *, seconds: float = 25) -> Any:
        def edit(current: Document | None) -> Document:
            current = current or Document.empty()
            return current if current.has_kid(kid) else current.with_key({**KEY, "kid": kid}, "")

        return await self.publisher.change(edit, deadline=self.time.passed + seconds)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "bucket")


async def test_the_first_write_makes_the_document(world: World) -> None:
    """Before it there was none; what comes back was read, not assumed."""
    outcome = await world.add()
    assert (outcome.before, outcome.wrote, kids(world.bucket)) == (None, True, ["k"])
    assert outcome.after.has_kid("k")


async def test_what_could_not_be_read_again_is_not_written(world: World) -> None:
    """A long document of somebody else's, which a merge would make longer than is read."""
    pad = '{"keys": [' + ",".join(f'{{"kid":"{number}"}}' for number in range(99)) + '], "pad": "'
    before = (pad + "x" * (1024 * 1024 - len(pad) - 2) + '"}').encode()
    write_document(world.bucket, before)
    with pytest.raises(KeyStateError, match="at most 1048576 are allowed"):
        await world.add()
    assert (world.bucket / JWKS).read_bytes() == before


async def test_what_is_there_already_is_not_written(world: World) -> None:
    """An edit that changes nothing writes nothing."""
    await world.add()
    writes = world.store.writes
    outcome = await world.add()
    assert (outcome.wrote, world.store.writes) == (False, writes)


async def test_a_lost_race_starts_from_a_fresh_read(world: World) -> None:
    """Somebody else's key, written in between, stays."""
    await world.add("mine first")

    def before(call: str) -> None:
        if call == "write" and "theirs" not in kids(world.bucket):
            content = document(world.bucket)
            content["keys"].append({**KEY, "kid": "theirs"})
            write_document(world.bucket, content)

    world.store.before = before
    await world.add("mine second")
    assert kids(world.bucket) == ["mine first", "theirs", "mine second"]


async def test_races_lost_all_the_time_end_at_the_deadline(world: World) -> None:
    """Nothing was written."""
    world.store.fail(StoreConflictError("lost"), "write")
    with pytest.raises(StoreConflictError):
        await world.add()
    assert world.time.passed < 1025


async def test_a_store_that_recovers_in_time_costs_only_time(world: World) -> None:
    """500 and 503 are tried again, with pauses."""
    failures = iter([StoreError("500")] * 4)

    def before(_: str) -> None:
        for failure in failures:
            raise failure

    world.store.before = before
    await world.add()
    assert kids(world.bucket) == ["k"]
    assert world.time.passed > 1000


async def test_a_read_torn_by_somebodys_write_is_tried_again(world: World) -> None:
    """Old length, new content: the next read is whole."""
    await world.add("first")
    whole = (world.bucket / JWKS).read_bytes()
    torn = iter([whole[:-9], whole[:-9], whole])

    def before(call: str) -> None:
        if call == "read":
            for content in torn:
                write_document(world.bucket, content)
                return

    world.store.before = before
    await world.add("second")
    assert kids(world.bucket) == ["first", "second"]


async def test_a_document_that_stays_foreign_ends_the_change_soon(world: World) -> None:
    """It does not pass by itself."""
    write_document(world.bucket, b"<html>")
    with pytest.raises(ForeignDocumentError):
        await world.add()
    assert world.time.passed < 1001
    assert world.store.writes == 0


@pytest.mark.parametrize("error", [StoreDeniedError("403"), StoreSettingsError("no bucket")])
async def test_what_does_not_pass_by_itself_ends_the_change_at_once(world: World, error: StoreError) -> None:
    """Trying again would only keep people waiting."""
    world.store.fail(error)
    with pytest.raises(type(error)):
        await world.add()
    assert world.time.passed == 1000


async def test_a_write_that_cannot_be_read_back_is_an_unknown_outcome(world: World) -> None:
    """Even when what fails then is a refusal."""

    def after(call: str) -> None:
        if call == "write" and kids(world.bucket):
            world.store.fail(StoreDeniedError("403"))

    world.store.after = after
    with pytest.raises(StoreOutcomeUnknownError):
        await world.add()
    assert kids(world.bucket) == ["k"]


async def test_an_unknown_outcome_that_a_read_shows_untaken_is_written_again(world: World) -> None:
    """The re-read decides."""
    await world.add("first")
    failures = iter([StoreOutcomeUnknownError("reset")])

    def before(call: str) -> None:
        if call == "write":
            for failure in failures:
                raise failure

    world.store.before = before
    await world.add("second")
    assert kids(world.bucket) == ["first", "second"]


async def test_a_last_read_finds_a_write_that_was_taken_as_time_ran_out(world: World) -> None:
    """Within the deadline; a known outcome is not reported as unknown."""

    def after(call: str) -> None:
        if call == "write" and world.store.writes == 1:
            world.time.advance(23)
            raise StoreOutcomeUnknownError("reset")

    world.store.after = after
    outcome = await world.add()
    assert (outcome.wrote, outcome.after.has_kid("k"), world.time.passed) == (True, True, 1023)


async def test_no_write_lasts_until_there_is_no_time_to_read(world: World) -> None:
    """It is taken, and never answered; on the event loop's own clock."""
    import asyncio

    write = world.store.write

    async def never(path: str, data: bytes, **how: Any) -> str:
        await write(path, data, **how)
        await asyncio.Event().wait()
        return ""

    world.store.write = never  # type: ignore[method-assign]
    loop = asyncio.get_running_loop()
    world.publisher = Publisher(
        world.store,
        JWKS,
        max_age_s=300,
        conditional=True,
        log=world.log,  # type: ignore[arg-type]
        monotonic=loop.time,
    )
    world.time.passed = loop.time()
    # Without time for the read, this would be an unknown outcome.
    outcome = await world.add(seconds=2.0)
    assert outcome.after.has_kid("k")
    assert loop.time() < world.time.passed + 2.0


async def test_a_write_that_the_last_read_does_not_show_is_reported_as_not_taken(world: World) -> None:
    """Its outcome was unknown; somebody else's document is there, and there is no time for another try."""
    await world.add("first")

    def before(call: str) -> None:
        if call == "write":
            world.time.advance(23)
            write_document(world.bucket, {"keys": [{**KEY, "kid": "theirs"}]})
            raise StoreOutcomeUnknownError("reset")

    world.store.before = before
    with pytest.raises(StoreConflictError, match="the JWKS was not changed: try again"):
        await world.add("second")


class Picky(Unreliable):
    """A store that compares etags without their quotes, or (``never``) refuses every etag."""

    never = False

    async def write(self, path: str, data: bytes, **how: Any) -> None:
        etag = how["etag"]
        if etag is not None and (self.never or etag.startswith('"')):
            self.writes += 1
            raise StoreConflictError("412")
        await super().write(path, data, **{**how, "etag": etag and f'"{etag}"'})


async def test_a_store_that_compares_etags_without_their_quotes_gets_them_so(world: World) -> None:
    """After two refusals of a document that has not changed."""
    world.store = Picky(DirectoryStore(world.bucket))
    world.publisher = world.made(conditional=True)
    await world.add("first")
    await world.add("second")
    assert kids(world.bucket) == ["first", "second"]
    assert world.time.passed < 1001


async def test_a_store_that_refuses_its_own_etag_is_named(world: World) -> None:
    """Within a second, not at the deadline as when others change the JWKS all the time."""
    world.store = picky = Picky(DirectoryStore(world.bucket))
    picky.never = True
    world.publisher = world.made(conditional=True)
    await world.add("first")
    picky.writes = 0
    with pytest.raises(UnconditionalStoreError) as caught:
        await world.add("second")
    assert caught.value.message.startswith("the store refuses the ETag that it gave")
    assert "keys.conditionalWrites = false" in caught.value.message
    assert (picky.writes, kids(world.bucket)) == (3, ["first"])
    assert world.time.passed < 1001


async def test_a_document_that_others_change_is_no_sign_of_a_store_that_refuses_its_etag(
    world: World,
) -> None:
    """Every refusal is about other content than the one before."""
    await world.add("first")

    def before(call: str) -> None:
        if call == "write" and world.store.writes < 8:
            content = document(world.bucket)
            content["keys"].append({**KEY, "kid": f"theirs {world.store.writes}"})
            write_document(world.bucket, content)

    world.store.before = before
    await world.add("second")
    assert kids(world.bucket)[-1] == "second"
    assert world.store.writes == 8


async def test_the_probe_writes_what_was_read_under_a_condition_that_cannot_hold(world: World) -> None:
    """Before the first change; a store that takes it is refused for all changes, and never asked again."""
    write_document(world.bucket, {"keys": [KEY]})
    before = (world.bucket / JWKS).read_bytes()
    seen = make_careless(world)
    for _ in range(2):
        with pytest.raises(UnconditionalStoreError):
            await world.add("new")
    assert (world.bucket / JWKS).read_bytes() == before
    assert seen == [before]


def make_careless(world: World) -> list[bytes]:
    """Make the world's store one that ignores conditions; what is written to it is listed."""
    world.store.inner = careless = Careless(world.store.inner)
    return careless.seen


async def test_no_probe_makes_a_document_where_there_is_none(world: World) -> None:
    """An empty JWKS of the program's own making would look like a revocation of all keys.

    The first key is published there, so that tokens go on; the next change finds out.
    """
    seen = make_careless(world)
    await world.add("first")
    assert kids(world.bucket) == ["first"]
    assert [data for data in seen if b"first" not in data] == []
    with pytest.raises(UnconditionalStoreError):
        await world.add("second")
    assert kids(world.bucket) == ["first"]


async def test_a_careless_store_is_a_warning_and_a_note_from_the_first_key_on(world: World) -> None:
    """The probe after the creation finds it; nobody has to ask for a change first."""
    make_careless(world)
    assert world.publisher.note is None
    await world.add("first")
    assert world.publisher.note is not None
    assert world.publisher.note.message.startswith("the store ignores If-Match")
    assert [line for line in world.log.of("warning") if "ignores If-Match" in line] != []


async def test_a_creation_that_nothing_guarded_is_read_again_after_some_seconds(world: World) -> None:
    """Another server's first key may have replaced it: then this one is not published."""
    make_careless(world)
    sleep = world.time.sleep

    async def replaced(seconds: float) -> None:
        write_document(world.bucket, {"keys": [{**KEY, "kid": "theirs"}]})
        await sleep(seconds)

    world.publisher._sleep = replaced
    with pytest.raises(UnconditionalStoreError):
        await world.add("mine")
    assert kids(world.bucket) == ["theirs"]
    assert world.time.passed == 1005


async def test_an_honest_store_is_probed_once(world: World) -> None:
    """Two changes, three writes."""
    await world.add("one")
    await world.add("two")
    assert world.store.writes == 3


async def test_a_probe_of_unknown_outcome_changed_nothing(world: World) -> None:
    """It would have written what was there."""
    write_document(world.bucket, {"keys": [KEY]})
    await world.publisher.read()
    world.store.fail(StoreOutcomeUnknownError("reset"), "probe")
    with pytest.raises(StoreError) as caught:
        await world.add("new")
    assert not isinstance(caught.value, StoreOutcomeUnknownError)
    assert caught.value.message == "the trial write before the change failed, and the change was not begun"
    assert caught.value.detail == "reset"


async def test_a_store_that_never_answers_is_given_up(world: World) -> None:
    """At the deadline, on the event loop's own clock."""
    import asyncio

    async def never(_: str) -> None:
        await asyncio.Event().wait()

    world.store.read = never  # type: ignore[method-assign, assignment]
    with pytest.raises(StoreError, match="did not answer in time"):
        await world.add(seconds=0.05)


async def test_an_unchanged_document_is_parsed_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read every five minutes, for years."""
    write_document(world.bucket, {"keys": [KEY]})
    parsed: list[bytes] = []
    parse = Document.parse
    monkeypatch.setattr(Document, "parse", lambda data: parsed.append(data) or parse(data))
    await world.publisher.read()
    await world.publisher.read()
    assert len(parsed) == 1


async def test_an_empty_file_is_no_document(world: World) -> None:
    """Not even for a publisher that has read nothing yet."""
    write_document(world.bucket, b"")
    with pytest.raises(ForeignDocumentError):
        await world.publisher.read()
