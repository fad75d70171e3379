"""Stores: which store the setting keys.bucket means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from tailbone.jwks.store import Store


def store_of(bucket: str) -> Store | None:
    """Make the store of a bucket; nothing is asked of anybody yet.

    Args:
        bucket: ``file:///some/dir``, the name of an S3 bucket, or empty for none.

    Raises:
        ConfigError: it is a URL of another kind.
    """
    if not bucket:
        return None
    if "://" in bucket:
        from tailbone.jwks.directory import DirectoryStore

        return DirectoryStore(directory_of(bucket))
    from tailbone.jwks.s3 import S3Store

    return S3Store(bucket)


def directory_of(bucket: str) -> Path:
    """The directory that a ``file://`` URL names (RFC 8089).

    Raises:
        ConfigError: the URL is of another kind, or names another host or no absolute path.
    """
    url = urlsplit(bucket)
    here = url.netloc in {"", "localhost"} and url.path.startswith("/") and not url.query and not url.fragment
    if url.scheme != "file" or not here:
        raise ConfigError(f"keys.bucket: {bucket!r} is not a directory; allowed: file:///some/dir")
    return Path(unquote(url.path))
