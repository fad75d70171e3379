"""Listings of the JWKS and of the folder."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.keys import START, drop

from tailbone.errors import KeyFileError, StoreError
from tailbone.keys import lifecycle as lifecycle_module
from tailbone.keys.folder import KeyFolder
from tailbone.keys.listing import KeyInfo, list_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.keys import Server

ROOT = Path(__file__).parents[3]


def listed_in(folder: Path) -> list[KeyInfo]:
    """The keys of a folder, without a server."""
    return list_folder(KeyFolder(folder).scan())


async def test_a_folder_is_listed_without_a_server(server: Callable[..., Server]) -> None:
    """The oldest first, with the states that are on disk; a broken key with its fault and the fix."""
    one = await server().start()
    first = one.signing
    one.time.advance(10)
    made = await one.keys.generate()
    broken = one.folder / "tb-1795518235.private.jwk"
    broken.write_bytes(b"{")
    broken.chmod(0o644)
    listed = {info.key_id: info for info in listed_in(one.folder)}
    assert list(listed) == [first, "tb-1795518235", made.key_id]
    assert (listed[first].state, listed[first].created_at, listed[first].algorithm) == (
        "active",
        int(START),
        "ES256",
    )
    assert listed["tb-1795518235"].state == "faulty"
    assert f"chmod 600 {broken}" in listed["tb-1795518235"].fault


async def test_listing_a_folder_changes_nothing(server: Callable[..., Server]) -> None:
    """Neither a lock nor a file is made."""
    one = await server().start()
    before = {path: path.stat().st_mtime_ns for path in one.folder.iterdir()}
    listed_in(one.folder)
    assert {path: path.stat().st_mtime_ns for path in one.folder.iterdir()} == before


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    """Somebody has mistyped it, or stands in the wrong directory."""
    with pytest.raises(KeyFileError, match=r"there is no key folder /.*: keys\.dir \(--dir\) names it"):
        KeyFolder(tmp_path / "none").require()


async def test_a_key_that_never_signs_differs_from_a_pending_one(
    server: Callable[..., Server], bucket: Path
) -> None:
    """Only housekeeping takes it away; the list of the JWKS does not have it."""
    one = await server().start()
    old = one.signing
    for path in one.folder.glob("*.state.json"):
        path.unlink()
    drop(bucket, old)
    again = await one.again().start()
    states = {info.key_id: info.state for info in listed_in(one.folder)}
    assert states[old] == "unpublished"
    assert old not in await again.states()


async def test_foreign_keys_are_marked_with_their_age(server: Callable[..., Server]) -> None:
    """Read from the kid, as for own ones."""
    one = await server("one").start()
    two = await server("two").start()
    (info,) = [info for info in await two.keys.list_keys() if info.foreign]
    assert (info.key_id, info.created_at, info.algorithm) == (one.signing, int(START), "ES256")


def test_listing_a_folder_imports_neither_sanic_nor_aws_nor_grpc(tmp_path: Path) -> None:
    """It is a command, not a server."""
    code = (
        "import sys; from pathlib import Path; from tailbone.keys.folder import KeyFolder;"
        "from tailbone.keys.listing import list_folder;"
        f"list_folder(KeyFolder(Path({str(tmp_path)!r})).scan());"
        "bad = {'aiobotocore', 'botocore', 'aiohttp', 'sanic', 'grpc', '_cffi_backend_lib'};"
        "sys.exit(bool(bad & {name.split('.')[0] for name in sys.modules}))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


async def test_the_next_change_of_a_key_without_a_record_is_unknown(server: Callable[..., Server]) -> None:
    """Whether a key is published or was revoked, only the JWKS tells."""
    one = await server().start()
    (one.folder / f"{one.signing}.state.json").unlink()
    assert [(info.state, info.next_change) for info in listed_in(one.folder)] == [("pending", None)]


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
