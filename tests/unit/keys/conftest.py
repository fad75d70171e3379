"""Servers on temporary folders, on a clock that stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from harness.keys import EC, FakeTime, Server

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
