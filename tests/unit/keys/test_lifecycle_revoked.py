"""Keys that somebody else took away, and documents that are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.keys import JWKS, Server, document, drop, write_document
from harness.problems import texts

from tailbone.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def test_absent_from_two_good_reads_30_s_apart_a_key_was_revoked(
    server: Callable[..., Server], bucket: Path
) -> None:
    """It stops signing, its files go to removed/, it is never put back; the promoted key goes on."""
    one = await server().start()
    old, new = one.signing, (await one.keys.generate()).key_id
    drop(bucket, old)
    await one.pass_time(100)
    assert one.signing == old
    assert one.keys._next_sync - one.time.passed == 30
    await one.pass_time(30)
    assert one.signing == new
    assert one.set_aside == [old]
    assert one.private == [new]
    await one.pass_time(400)
    assert one.published == [new]


async def test_absent_once_and_back_again_a_key_goes_on(server: Callable[..., Server], bucket: Path) -> None:
    """The second read has it, so that the first one counts for nothing."""
    one = await server().start()
    old = one.signing
    await server("two").start()
    content = document(bucket)
    drop(bucket, old)
    await one.pass_time(1)
    write_document(bucket, content)
    await one.pass_time(31)
    drop(bucket, old)
    await one.pass_time(1)
    assert one.signing == old
    assert one.set_aside == []


async def test_two_reads_close_together_revoke_nothing(server: Callable[..., Server], bucket: Path) -> None:
    """Somebody may be in the middle of something."""
    one = await server().start()
    old = one.signing
    drop(bucket, old)
    for _ in range(5):
        await one.pass_time(5)
    assert one.signing == old


async def test_at_every_moment_of_a_revocation_some_key_signs(
    server: Callable[..., Server], bucket: Path
) -> None:
    """The newest key that the document holds takes over before the revoked one stops."""
    one = await server().start()
    old, made = one.signing, (await one.keys.generate()).key_id
    drop(bucket, old)
    await one.pass_time(1)
    await one.pass_time(31)
    assert one.signing == made
    assert one.signers == [old, made]


async def test_when_the_last_key_was_revoked_a_new_first_key_is_made(
    server: Callable[..., Server], bucket: Path
) -> None:
    """Into an empty document it goes without a wait."""
    one = await server().start()
    old = one.signing
    write_document(bucket, {"keys": []})
    await one.pass_time(300)
    await one.pass_time(30)
    assert one.signing not in ("", old)
    assert one.published == [one.signing]
    assert one.set_aside == [old]


async def test_a_key_replaced_by_another_under_its_kid_was_revoked(
    server: Callable[..., Server], bucket: Path
) -> None:
    """Kid and thumbprint are compared together."""
    one = await server("one").start()
    old = one.signing
    two = await server("two").start()
    content = document(bucket)
    content["keys"] = [{**content["keys"][1], "kid": old}]
    write_document(bucket, content)
    await one.pass_time(300)
    await one.pass_time(30)
    assert one.set_aside == [old]
    assert old != one.signing
    assert two.signing == ""


async def test_only_a_document_that_is_gone_gets_confirmed_keys_back(
    server: Callable[..., Server], bucket: Path
) -> None:
    """Those of this server; the others' servers put theirs back. The signing key goes on all the time."""
    one = await server().start()
    old, new = one.signing, (await one.keys.generate()).key_id
    (bucket / JWKS).unlink()
    await one.pass_time(10)
    assert one.published == [old, new]
    assert one.signing == old


async def test_a_document_that_was_gone_and_is_put_back_is_one_warning(
    server: Callable[..., Server], bucket: Path
) -> None:
    """Each time that it happens."""
    one = await server().start()

    def warnings() -> list[str]:
        return [line for line in one.log.of("warning") if "the JWKS was missing" in line]

    assert warnings() == []
    for times in (1, 2):
        (bucket / JWKS).unlink()
        for _ in range(3):
            await one.pass_time(100)
        assert len(warnings()) == times
        assert one.signing in warnings()[-1]


async def test_an_hour_without_the_store_changes_nothing(server: Callable[..., Server]) -> None:
    """Tokens go on, readiness stays, changes fail, and it recovers by itself."""
    one = await server().start()
    assert one.store is not None
    one.store.fail(StoreError("away"))
    for _ in range(60):
        await one.pass_time(60)
    assert one.keys.reasons() == []
    assert texts(one.keys.notes()) == ["jwks: away", "jwks: stale: last read 3600 s ago"]
    one.store.recover()
    await one.pass_time(60)
    assert one.keys.notes() == []


async def test_a_key_activates_while_the_store_is_away(server: Callable[..., Server]) -> None:
    """It was read back before; only time was missing."""
    one = await server().start()
    made = await one.keys.generate()
    assert one.store is not None
    one.store.fail(StoreError("away"))
    await one.pass_time(301)
    assert one.signing == made.key_id


async def test_a_second_outage_is_said_again(server: Callable[..., Server]) -> None:
    """Once each; and that it is over."""
    one = await server().start()
    assert one.store is not None
    for _ in range(2):
        one.store.fail(StoreError("away"))
        for _ in range(3):
            await one.pass_time(60)
        one.store.recover()
        await one.pass_time(60)
    said = [event for _, event, _ in one.log.lines if event in ("away", "the JWKS can be read again")]
    assert said == ["away", "the JWKS can be read again"] * 2
