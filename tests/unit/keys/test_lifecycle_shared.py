"""Several servers on one bucket, several processes on one folder."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest
from harness.keys import EC, ObservedDisk

from tailbone.errors import KeyStateError
from tailbone.files import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.keys import Server


async def test_the_jwks_is_the_union_of_all_servers_keys(server: Callable[..., Server]) -> None:
    """Three servers start at the same moment on nothing, each with its folder."""
    servers = [server(name) for name in ("one", "two", "three")]
    await asyncio.gather(*(one.start() for one in servers))
    published = servers[0].published
    assert sorted(published) == sorted(kid for one in servers for kid in one.private)
    assert len(set(published)) == 3


async def test_changes_of_many_servers_at_once_all_come_about(server: Callable[..., Server]) -> None:
    """No writer loses another's key, and no removed key comes back."""
    servers = [await server(name).start() for name in ("one", "two", "three")]

    async def change(one: Server) -> None:
        for _ in range(4):
            made = await one.keys.generate()
            await one.keys.generate()
            await one.keys.remove(made.key_id)

    await asyncio.gather(*map(change, servers))
    expected = sorted(kid for one in servers for kid in one.private)
    assert len(expected) == 3 * (1 + 4)
    assert sorted(servers[0].published) == expected


@pytest.mark.parametrize("when", ["before the lock is taken", "after"])
async def test_a_change_cancelled_while_a_thread_takes_the_lock_gives_it_back(
    server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """What a cancelled thread still takes would be kept until the process ends."""
    one = await server().start()
    other = await server().start()
    begun, go = threading.Event(), threading.Event()
    taken = ProcessLock.try_acquire

    def slow(lock: ProcessLock) -> bool:
        held = taken(lock) if when == "after" else False
        begun.set()
        assert go.wait(10)
        return held or taken(lock)

    with monkeypatch.context() as patch:
        patch.setattr(ProcessLock, "try_acquire", slow)
        changing = asyncio.ensure_future(one.keys.generate())
        assert await asyncio.to_thread(begun.wait, 10)
        closing = asyncio.ensure_future(one.keys.close(0.0))
        asyncio.get_running_loop().call_later(0.05, go.set)
        await closing
        with pytest.raises(asyncio.CancelledError):
            await changing
    assert (await other.keys.generate()).key_id in other.published


async def test_a_key_generated_by_one_process_is_seen_by_the_other(server: Callable[..., Server]) -> None:
    """Issuer and admin apart: the issuer signs with it when its time has come."""
    issuer = await server().start()
    admin = await server().start()
    assert admin.signing == issuer.signing
    made = await admin.keys.generate()
    await issuer.pass_time(1)
    assert {key.kid for key in issuer.keys.ring.published} == set(issuer.private)
    await issuer.pass_time(300)
    assert issuer.signing == made.key_id


async def test_a_remove_waits_until_the_other_process_has_stopped_signing(
    server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the mark in the folder and the write of the JWKS the issuer looks at the folder twice."""
    issuer = await server().start()
    admin = await server().start()
    old, new = issuer.signing, (await admin.keys.generate()).key_id
    at_write: list[str] = []
    assert admin.store is not None
    admin.store.before = lambda call: at_write.append(issuer.signing) if call == "write" else None
    sleep = admin.time.sleep

    async def watched(seconds: float) -> None:
        await sleep(seconds)
        await issuer.keys.tick()

    monkeypatch.setattr(admin.time, "sleep", watched)
    await admin.keys.remove(old)
    assert at_write == [new]


async def test_what_one_process_removes_the_other_soon_no_longer_serves(
    server: Callable[..., Server],
) -> None:
    """A published key that is gone from the folder makes it read the document."""
    issuer = await server().start()
    admin = await server().start()
    made = (await admin.keys.generate()).key_id
    await issuer.pass_time(1)
    await admin.keys.remove(made)
    await issuer.keys.tick()
    assert issuer.keys._next_sync <= issuer.time.passed


async def test_removed_by_one_process_the_last_key_is_not_replaced_by_the_other(
    server: Callable[..., Server],
) -> None:
    """It was meant."""
    issuer = await server().start()
    admin = await server().start()
    await admin.keys.remove(admin.signing)
    for _ in range(5):
        await issuer.pass_time(100)
    assert issuer.signing == ""
    assert issuer.private == []


async def test_a_change_waits_for_another_process_and_then_gives_up(server: Callable[..., Server]) -> None:
    """The lock of the folder is held for the length of a change; tokens go on meanwhile."""
    one = await server().start()
    fd = os.open(one.folder / ".lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        with pytest.raises(KeyStateError, match="another change"):
            await one.keys.generate()
        await one.keys.tick()
        assert one.keys.reasons() == []
    finally:
        os.close(fd)
    await one.keys.generate()


async def test_the_copy_of_the_jwks_is_kept_only_under_the_lock(server: Callable[..., Server]) -> None:
    """A read alone writes nothing; what it found is served, and kept when the lock can be had."""
    one = await server().start()
    kept = one.folder / ".last-published.json"
    before = kept.read_bytes()
    two = await server("two").start()
    fd = os.open(one.folder / ".lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        await one.keys.sync()
        assert two.private[0].encode() in one.keys.published_document()  # type: ignore[operator]
        assert kept.read_bytes() == before
    finally:
        os.close(fd)
    await one.pass_time(60)
    assert two.private[0].encode() in kept.read_bytes()


async def test_a_start_during_another_process_change_does_not_wait_for_it(
    server: Callable[..., Server],
) -> None:
    """Its ring comes from what is confirmed on disk."""
    one = await server().start()
    fd = os.open(one.folder / ".lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        two = server()
        await two.keys.start()
        assert two.signing == one.signing
    finally:
        os.close(fd)


async def test_a_longer_expiry_is_on_disk_before_a_token_has_it(server: Callable[..., Server]) -> None:
    """Else a kill could lose it, and the key would leave the JWKS before its last token has expired.

    Until then tokens live as long as before.
    """
    one = await server().start()
    fd = os.open(one.folder / ".lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    two = server(settings=msgspec.structs.replace(EC, expiry_s=3600.0))
    try:
        await two.keys.start()
        assert (two.signing, two.keys.ring.expiry_s) == (one.signing, 1200.0)
    finally:
        os.close(fd)
    await two.keys.tick()
    assert (two.signing, two.keys.ring.expiry_s) == (one.signing, 3600.0)
    state = msgspec.json.decode((one.folder / f"{one.signing}.state.json").read_bytes())
    assert state["expiry_s"] == 3600.0


async def test_the_expiry_changes_while_it_runs(server: Callable[..., Server]) -> None:
    """A longer one counts when it is on disk; a shorter one leaves the record, which earlier tokens need."""
    one = await server().start()
    for expiry_s, before, after in ((3600.0, 1200.0, 3600.0), (60.0, 3600.0, 3600.0)):
        one.keys.set_expiry(expiry_s)
        assert one.keys.ring.expiry_s == before
        await one.keys.tick()
        assert one.keys.ring.expiry_s == after


async def test_another_process_shorter_expiry_takes_no_signing_key_away(
    server: Callable[..., Server],
) -> None:
    """What the admin activates signs at once, for shorter tokens until the longer expiry is on disk."""
    issuer = await server(settings=msgspec.structs.replace(EC, expiry_s=3600.0)).start()
    disk = ObservedDisk()
    admin = await server(settings=msgspec.structs.replace(EC, expiry_s=60.0), disk=disk).start()
    made = (await admin.keys.generate()).key_id
    seen: list[tuple[str, float]] = []

    async def observe() -> None:
        await issuer.keys.tick()
        seen.append((issuer.signing, issuer.keys.ring.expiry_s))

    disk.observe = observe
    await admin.pass_time(301)
    disk.observe = None
    assert seen
    assert set(seen) == {(made, 60.0)}
    await issuer.keys.tick()
    assert issuer.signing == admin.signing == made
    assert issuer.keys.ring.expiry_s == 3600.0
    state = msgspec.json.decode((issuer.folder / f"{made}.state.json").read_bytes())
    assert state["expiry_s"] == 3600.0


@pytest.mark.parametrize("alone", [True, False])
async def test_a_key_does_not_take_an_older_ones_expiry_over(
    server: Callable[..., Server], alone: bool
) -> None:
    """Its own tokens never lived as long, so that it need not stay published as long."""
    one = await server(settings=msgspec.structs.replace(EC, expiry_s=3600.0)).start()
    await one.keys.close()
    now = msgspec.structs.replace(EC, expiry_s=60.0)
    again = await one.again(settings=now).start()
    other = None if alone else await one.again(settings=now).start()
    made = await again.keys.generate()
    await again.pass_time(301)
    if other:
        await other.pass_time(1)
    state = msgspec.json.decode((one.folder / f"{made.key_id}.state.json").read_bytes())
    assert (again.signing, state["expiry_s"]) == (made.key_id, 60.0)


async def test_two_first_starts_on_one_folder_make_one_key(server: Callable[..., Server]) -> None:
    """The second one finds the first one's."""
    issuer, admin = server(), server()
    await asyncio.gather(issuer.start(), admin.start())
    await issuer.pass_time(1)
    await admin.pass_time(1)
    assert len(issuer.private) == 1
    assert issuer.signing == admin.signing == issuer.private[0]
