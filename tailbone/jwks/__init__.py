"""The published JWKS and its stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from tailbone.jwks.store import Store


def store_of(bucket: str) -> Store | None:
    """Create the store that the setting keys.bucket names. Nothing is sent yet.

    Args:
        bucket: ``file:///some/dir``, the name of an S3 bucket, or empty for none; see ``checks.bucket``.

    Raises:
        ConfigError: the S3 settings contradict each other.
    """
    if not bucket:
        return None
    # Imported here: the S3 SDK takes 0.3 s, and no other command needs it.
    if "://" in bucket:
        from tailbone.jwks.directory import DirectoryStore

        return DirectoryStore(Path(unquote(urlsplit(bucket).path)))
    from tailbone.jwks.s3 import S3Store

    return S3Store(bucket)
