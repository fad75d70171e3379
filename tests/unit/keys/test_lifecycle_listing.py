"""Listing: the keys of the JWKS and of the folder."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tailbone.errors import (
    StoreError,
)
from tailbone.keys import lifecycle as lifecycle_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.keys import Server


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
