"""Stores that ignore conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from harness.keys import EC, Careless, FakeTime, Server, document, write_document
from harness.problems import texts

from tailbone.errors import (
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
    server: Callable[..., Server], bucket: Path, monkeypatch: pytest.MonkeyPatch
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

    monkeypatch.setattr(one.time, "sleep", replaced)
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
    conditional: list[bool] = []
    assert one.store is not None
    inner = one.store.inner

    class Watched:
        location = inner.location
        read = inner.read
        close = inner.close

        async def write(self, path: str, data: bytes, **how: Any) -> None:
            conditional.append(how["conditional"])
            await inner.write(path, data, **how)

    one.store.inner = Watched()
    await one.start()
    await one.keys.generate()
    assert conditional == [False, False]
