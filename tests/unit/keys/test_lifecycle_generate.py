"""Generate: requests for new keys."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from harness.keys import EC, START, Server, document, drop, write_document

from tailbone.errors import (
    BadParameterError,
    GenerationUnderWayError,
    KeyStateError,
    StoreDeniedError,
    StoreError,
    StoreOutcomeUnknownError,
)
from tailbone.keys.listing import KeyInfo

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


async def test_a_key_whose_write_was_lost_is_published_when_the_store_answers_again(
    server: Callable[..., Server],
) -> None:
    """As a removal of unknown outcome, it is finished; the key signs after its wait."""
    one = await server().start()
    assert one.store is not None
    one.store.break_down("write", StoreOutcomeUnknownError("reset"), applied=False)
    with pytest.raises(StoreOutcomeUnknownError):
        await one.keys.generate()
    assert one.published == [one.signing]
    assert len(one.private) == 2
    one.store.recover()
    await one.keys.sync()
    assert sorted(one.published) == one.private
    assert set((await one.states()).values()) == {"active", "published"}


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

        async def write(self, path: str, data: bytes, **how: Any) -> None:
            await inner.write(path, data, **how)
            writing.set()
            await asyncio.Event().wait()

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


async def test_a_key_gone_from_the_document_is_not_put_back_by_a_change(
    server: Callable[..., Server], bucket: Path
) -> None:
    """A merge adds what is asked for, nothing else."""
    one = await server().start()
    old = one.signing
    drop(bucket, old)
    made = await one.keys.generate()
    assert one.published == [made.key_id]
