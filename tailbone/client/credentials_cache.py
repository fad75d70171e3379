"""Credentials on disk, for commands that SDKs run again and again."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailbone.errors import ExchangeError
from tailbone.files import Disk, ProcessLock, others_who_can, read_regular
from tailbone.json_object import parse_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LIMIT = 1 << 16
_LOCK_S = 30.0


class CredentialsCache:
    """One entry of ``$XDG_CACHE_HOME/tailbone``: a JSON object that only this user can read."""

    def __init__(self, key: Sequence[str], folder: Path | None = None) -> None:
        """Use the entry of a key: everything that the credentials depend on."""
        home = os.environ.get("XDG_CACHE_HOME")
        self._folder = folder or (Path(home) if home else Path.home() / ".cache") / "tailbone"
        name = hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()[:32]
        self._path = self._folder / f"{name}.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from the entry, so that parallel calls make one request.

        Raises:
            ExchangeError: another process keeps it for too long.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = ProcessLock(self._path.with_suffix(".lock"))
        if not lock.acquire(_LOCK_S):
            raise ExchangeError(f"another process holds {self._path.with_suffix('.lock')}")
        try:
            yield
        finally:
            lock.release()

    def read(self) -> dict[str, Any]:
        """Return the entry; empty if there is none, or if others could have written it."""
        try:
            data, status = read_regular(self._path, _LIMIT)
        except (OSError, ValueError):  # the latter for what is not a file, or too long
            return {}
        trusted = not others_who_can(0o006, status.st_mode, status.st_uid)
        return (parse_object(data) or {}) if trusted else {}

    def write(self, entry: dict[str, Any]) -> None:
        """Replace the entry.

        Raises:
            OSError: it cannot be written.
        """
        Disk().replace(self._path, json.dumps(entry).encode(), mode=0o600)
