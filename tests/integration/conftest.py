"""Integration tests run on the private tailnet, and clean up after themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Check after each test that it left no native handle, descriptor or goroutine."""
    from harness.leaks import NothingLeft

    with NothingLeft(slack=4):
        yield
