"""The store of ``file://`` buckets: documents in a local directory."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from tailbone.errors import (
    ForeignDocumentError,
    StoreConflictError,
    StoreDeniedError,
    StoreError,
)
from tailbone.files import TEMPORARY_SUFFIX, Disk, ProcessLock, read_regular
from tailbone.jwks.store import LARGEST, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Shorter than the deadline of a write: by then the lock's holder has changed the file, and this write must be
# repeated with the new content.
_LOCK_TIMEOUT_S = 2.0
_READABLE_BY_ALL = 0o644

_T = TypeVar("_T")


class DirectoryStore:
    """Stores documents as files. A lock between processes makes each write an atomic compare-and-swap.

    Content type and Cache-Control are up to the web server of the directory.
    """

    def __init__(self, root: Path, *, disk: Disk | None = None) -> None:
        """Use the directory with this absolute path. The first write creates it if needed."""
        self.location = f"file://{root}"
        self._root = root
        self._disk = disk or Disk()

    async def read(self, path: str) -> Stored | None:
        """See ``Store.read``."""
        file = self._file(path)
        return await self._in_thread(f"read {file}", lambda: _read(file))

    async def write(
        self,
        path: str,
        data: bytes,
        *,
        etag: str | None,
        conditional: bool = True,
        content_type: str,  # noqa: ARG002 -- files have none
        cache_control: str,  # noqa: ARG002 -- files have none
    ) -> None:
        """See ``Store.write``."""
        file = self._file(path)

        def write() -> None:
            with self._locked(file):
                before = _read(file)
                if conditional and etag != (before.etag if before else None):
                    raise StoreConflictError(f"{file} was changed by another writer")
                self._replace(file, data)

        await self._in_thread(f"write {file}", write)

    async def close(self) -> None:
        """See ``Store.close``; there is nothing to close."""

    def _file(self, path: str) -> Path:
        parts = PurePosixPath(path).parts
        if not parts or ".." in parts or PurePosixPath(path).is_absolute():
            raise StoreError(f"{path!r} is not a path inside {self.location}")
        return self._root.joinpath(*parts)

    async def _in_thread(self, what: str, call: Callable[[], _T]) -> _T:
        try:
            return await asyncio.to_thread(call)
        except PermissionError as error:
            raise StoreDeniedError(
                f"permission denied: cannot {what}; grant this user the permission", detail=str(error)
            ) from error
        except OSError as error:
            raise StoreError(
                f"cannot {what}: {error.strerror or 'input/output error'}", detail=str(error)
            ) from error

    @contextmanager
    def _locked(self, file: Path) -> Iterator[None]:
        """Keep other writers from a document."""
        self._disk.mkdir(file.parent, mode=0o755)
        lock = ProcessLock(file.with_name(f".{file.name}.lock"))
        if not lock.acquire(_LOCK_TIMEOUT_S):
            raise StoreError(f"another process holds the lock of {file}")
        try:
            yield
        finally:
            lock.release()

    def _replace(self, file: Path, data: bytes) -> None:
        """Replace a document, and remove what killed writers left: the lock's holder is the only writer."""
        for left in list(file.parent.glob(f".{file.name}.*{TEMPORARY_SUFFIX}")):
            self._disk.unlink(left)
        self._disk.replace(file, data, mode=_READABLE_BY_ALL)


def _read(file: Path) -> Stored | None:
    try:
        data, _ = read_regular(file, LARGEST)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ForeignDocumentError(
            f"{file} {error}, so it cannot be a JWKS; it is left as it is: delete it, or set keys.keyPath to "
            "another"
        ) from None
    return Stored(data=data, etag=_etag(data))


def _etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()}"'
