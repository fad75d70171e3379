"""The keys that the settings describe, and housekeeping without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tailbone.config.load import load
from tailbone.daemon.keys import housekeeping
from tailbone.errors import ConfigError, TailboneError

if TYPE_CHECKING:
    from pathlib import Path


def test_housekeeping_needs_a_bucket(tmp_path: Path) -> None:
    config = load({"keys.dir": str(tmp_path)}, environ={})
    with pytest.raises(ConfigError, match=r"keys\.bucket is not set"):
        housekeeping(config, force=False, dry_run=False)


def test_housekeeping_makes_no_folder(tmp_path: Path) -> None:
    """A mistyped folder is refused, and still does not exist afterwards."""
    folder = tmp_path / "kyes"
    config = load({"keys.dir": str(folder), "keys.bucket": (tmp_path / "bucket").as_uri()}, environ={})
    with pytest.raises(TailboneError, match="kyes"):
        housekeeping(config, force=False, dry_run=False)
    assert folder.exists() is False
