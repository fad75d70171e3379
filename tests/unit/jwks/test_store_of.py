"""Facts about keys.bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailbone.errors import ConfigError
from tailbone.jwks import store_of
from tailbone.jwks.directory import directory_of


def test_no_bucket_is_no_store() -> None:
    """Nothing is published anywhere."""
    assert store_of("") is None


@pytest.mark.parametrize(
    ("bucket", "folder"),
    [
        ("file:///some/dir", "/some/dir"),
        ("file://localhost/some/dir", "/some/dir"),
        ("file:///with%20space/%C3%A4", "/with space/ä"),
        ("file:///", "/"),
    ],
)
def test_directory(bucket: str, folder: str) -> None:
    """A file URL names an absolute path on this machine."""
    assert directory_of(bucket) == Path(folder)


@pytest.mark.parametrize(
    "bucket",
    [
        "file://host/dir",
        "file://relative",
        "file:",
        "s3://bucket",
        "https://x/y",
        "file:///a?b",
        "file:///a#b",
    ],
)
def test_no_directory(bucket: str) -> None:
    """Anything else is an error that says what is allowed."""
    with pytest.raises(ConfigError, match="file:///some/dir"):
        directory_of(bucket)


def test_a_name_is_a_bucket() -> None:
    """Its location says so."""
    store = store_of("my-bucket")
    assert store is not None
    assert store.location.startswith("s3://my-bucket")
