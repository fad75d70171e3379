"""store_of: the store that keys.bucket names."""

from __future__ import annotations

import pytest

from tailbone.jwks import store_of
from tailbone.jwks.directory import DirectoryStore


def test_no_bucket_is_no_store() -> None:
    """Nothing is published anywhere."""
    assert store_of("") is None


def test_a_name_is_a_bucket() -> None:
    """Its location says so."""
    store = store_of("my-bucket")
    assert store is not None
    assert store.location.startswith("s3://my-bucket")


@pytest.mark.parametrize(
    ("bucket", "folder"),
    [("file:///some/dir", "/some/dir"), ("file:///with%20space/%C3%A4", "/with space/ä")],
)
def test_a_file_url_is_a_directory(bucket: str, folder: str) -> None:
    """Its location names the folder."""
    store = store_of(bucket)
    assert isinstance(store, DirectoryStore)
    assert store.location == f"file://{folder}"
