"""Servers on temporary folders, on a clock that stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from harness.keys import EC, JWKS, FakeTime, Server
from harness.log import Lines

from tailbone.jwks.directory import DirectoryStore
from tailbone.jwks.publisher import Publisher
from tailbone.keys.folder import KeyFolder
from tailbone.keys.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


@pytest.fixture
def server(tmp_path: Path, bucket: Path, time: FakeTime) -> Callable[..., Server]:
    """Makes servers; those of one name share a folder, all share the bucket."""

    def make(name: str = "keys", **how: Any) -> Server:
        return Server(tmp_path / name, bucket, time, settings=how.pop("settings", EC), **how)

    return make


@pytest.fixture
def observer(tmp_path: Path, bucket: Path, time: FakeTime) -> Callable[..., Observer]:
    """Makes observers of one folder; with a store by default."""

    def make(*, publishes: bool = True) -> Observer:
        folder = KeyFolder(tmp_path / "keys")
        folder.prepare()
        log: Any = Lines()
        how: dict[str, Any] = {"log": log, "monotonic": time.monotonic, "sleep": time.sleep}
        publisher = Publisher(DirectoryStore(bucket), JWKS, max_age_s=EC.max_age_s, conditional=True, **how)
        return Observer(
            folder=folder,
            publisher=publisher if publishes else None,
            settings=EC,
            log=log,
            changes=log,
            clock=time.clock,
            monotonic=time.monotonic,
        )

    return make
