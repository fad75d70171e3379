"""The key folder: its contents, and all changes to it."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from tailbone.errors import ForeignDocumentError, KeyFileError, KeyStateError
from tailbone.files import (
    TEMPORARY_SUFFIX,
    Disk,
    ProcessLock,
    fix_of_denial,
    others_who_can,
    read_regular,
)
from tailbone.jwks.document import Document
from tailbone.keys.record import KeyRecord, Phase
from tailbone.keys.signing_key import SigningKey, created_at_of, parse_jwk, thumbprint_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRIVATE_SUFFIX: Final = ".private.jwk"
PUBLIC_SUFFIX: Final = ".public.jwk"
STATE_SUFFIX: Final = ".state.json"
_SUFFIXES: Final = (PRIVATE_SUFFIX, PUBLIC_SUFFIX, STATE_SUFFIX)
REMOVED: Final = "removed"
"""The subfolder for keys that must not be used and are not deleted."""

_LOCK: Final = ".lock"
_SAVED_COPY: Final = ".last-published.json"
_LARGEST_FILE: Final = 64 * 1024
# The document is stored as a JSON string, where each quote and line end takes two bytes.
_LARGEST_COPY: Final = 4 * 1024 * 1024
_DENIED: Final = (errno.EACCES, errno.EPERM)

_Stamp = tuple[int, int, int, int, int]
_T = TypeVar("_T")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One kid in the folder.

    Attributes:
        kid: the files' common name, made printable.
        files: the existing files of this kid, private half first. No other paths are used for it.
        key: the private key, if it can be used.
        record: the key's record, if it belongs to this key.
        fault: why the key cannot be used, with the fix if there is one; "" if it can be used.
        unsafe: everybody can read or change the private half.
        public_missing: the public half has to be written again.
        warning: a problem that does not stop the key from being used.
    """

    kid: str
    files: tuple[Path, ...]
    key: SigningKey | None = None
    record: KeyRecord | None = None
    fault: str = ""
    unsafe: bool = False
    public_missing: bool = False
    warning: str = ""

    @property
    def thumbprint(self) -> str:
        """The key's thumbprint, or \"\" if unknown."""
        return self.key.thumbprint if self.key else self.record.thumbprint if self.record else ""

    def phase_at(self, location: str) -> Phase:
        """Return the phase in the document at ``location``; a key without a record is pending."""
        return self.record.phase_at(location) if self.record else Phase.PENDING

    @property
    def is_removing(self) -> bool:
        """Whether the key is being removed."""
        return self.record is not None and self.record.phase is Phase.REMOVING

    @property
    def is_leftover(self) -> bool:
        """Whether only the record is left, as after a kill between the files of one change."""
        return self.key is None and self.record is not None and len(self.files) == 1


def age(entry: Entry) -> tuple[float, float, str]:
    """Return what sorts keys, the oldest first."""
    created_at = entry.key.created_at if entry.key else created_at_of(entry.kid) or 0
    return (created_at, entry.record.made_at if entry.record else 0.0, entry.kid)


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The folder at one moment.

    Attributes:
        entries: by kid.
        warning: about the folder itself.
    """

    entries: dict[str, Entry] = {}
    warning: str = ""


class _Half(msgspec.Struct, frozen=True, kw_only=True):
    """What was read from one file, or why it could not be read."""

    key: SigningKey | None = None
    kid: str = ""
    thumbprint: str = ""
    record: KeyRecord | None = None
    fault: str = ""
    unsafe: bool = False
    warning: str = ""


class _SavedCopy(msgspec.Struct, rename={"location": "place"}):
    location: str
    document: str


class KeyFolder:
    """Per kid ``<kid>.private.jwk``, ``<kid>.public.jwk``, and beside them ``<kid>.state.json``.

    Everything here blocks: call it in a thread. A file is parsed again only when it has changed.
    """

    def __init__(self, path: Path, *, disk: Disk | None = None) -> None:
        """Use a folder, which need not exist yet. ``disk`` makes all changes to it."""
        self.path = path
        self._disk = disk or Disk()
        self._parsed: dict[str, tuple[_Stamp, _Half]] = {}
        self._stamps: dict[str, _Stamp] = {}

    def require(self) -> None:
        """Check that the folder exists, so that a mistyped name does not create one.

        Raises:
            KeyFileError: there is no such folder.
        """
        if not self.path.is_dir():
            raise KeyFileError(f"there is no key folder {self.path.absolute()}: keys.dir (--dir) names it")

    def prepare(self) -> None:
        """Create the folder (0700) if it does not exist.

        Raises:
            KeyFileError: it cannot be created or written to.
        """
        with self._changing():
            if not self.path.exists():
                self._disk.mkdir(self.path, mode=0o700)
            lock = self.lock()
            lock.try_acquire()
            lock.release()

    def lock(self) -> ProcessLock:
        """Return a new handle on the lock that every change to the folder holds."""
        return ProcessLock(self.path / _LOCK)

    def clear_temporaries(self) -> None:
        """Delete temporary files of killed writes. The caller holds the lock, so no write is in progress."""
        for path in list(self.path.glob(f".*{TEMPORARY_SUFFIX}")):
            self._disk.unlink(path)

    def changed(self) -> bool:
        """Return whether any key file has changed since the last scan. This is cheap."""
        return self._read_stamps() != self._stamps

    def scan(self) -> Snapshot:
        """Read the folder. A folder that does not exist is empty.

        Raises:
            KeyFileError: everybody can write to the folder, or it cannot be read.
        """
        self._stamps = stamps = self._read_stamps()
        self._parsed = {name: parsed for name, parsed in self._parsed.items() if name in stamps}
        kids: dict[str, dict[str, str]] = {}
        for name in sorted(stamps):
            for suffix in _SUFFIXES:
                if name.endswith(suffix):
                    kids.setdefault(name.removesuffix(suffix), {})[suffix] = name
        entries = [self._entry(stem, names) for stem, names in kids.items()]
        return Snapshot(entries={entry.kid: entry for entry in entries}, warning=self._check_mode())

    # --- changes: each only while holding the lock

    def add(self, key: SigningKey, record: KeyRecord) -> None:
        """Write a new key, its record first, so that a half-written pair has a record.

        Raises:
            KeyStateError: the kid is already in use.
            KeyFileError: the key could not be written.
        """
        path = self.path / f"{key.kid}{PRIVATE_SUFFIX}"
        if os.path.lexists(path):
            raise KeyStateError(f"key {key.kid} already exists")
        self.write_record(key.kid, record)
        self._replace(path, key.private_jwk(), mode=0o600)
        self.write_public(key)

    def write_public(self, key: SigningKey) -> None:
        """Write a key's public half."""
        data = msgspec.json.format(msgspec.json.encode(key.public_jwk()), indent=2) + b"\n"
        self._replace(self.path / f"{key.kid}{PUBLIC_SUFFIX}", data, mode=0o644)

    def write_record(self, kid: str, record: KeyRecord) -> None:
        """Write a key's record. ``kid`` must be generated here or found in the folder, not a client's."""
        self._replace(self.path / f"{kid}{STATE_SUFFIX}", record.to_json(), mode=0o600)

    def delete(self, entry: Entry) -> None:
        """Delete a key's files: the private half first, and last the record, which marks the removal."""
        with self._changing():
            for path in entry.files:
                if os.path.lexists(path):
                    self._disk.unlink(path)
            self._disk.fsync_folder(self.path)

    def move_to_removed(self, entry: Entry) -> None:
        """Move a key's files to ``removed/``, the private half first and the record last."""
        removed = self.path / REMOVED
        with self._changing():
            if not removed.exists():
                self._disk.mkdir(removed, mode=0o700)
            for path in entry.files:
                target, number = removed / path.name, 0
                while os.path.lexists(target):
                    number += 1
                    target = removed / f"{path.name}.{number}"
                self._disk.rename(path, target)
            self._disk.fsync_folder(removed)
            self._disk.fsync_folder(self.path)

    # --- the saved copy of the published document

    def read_saved_copy(self, location: str) -> Document | None:
        """Return the saved copy of the document at ``location``; None if there is none.

        Raises:
            KeyFileError: the copy is damaged, or cannot be read.
        """
        try:
            data, _ = read_regular(self.path / _SAVED_COPY, _LARGEST_COPY)
            saved = msgspec.json.decode(data, type=_SavedCopy)
            return Document.parse(saved.document.encode()) if saved.location == location else None
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError, ForeignDocumentError):
            raise KeyFileError("the saved copy of the JWKS is damaged") from None
        except OSError as error:
            raise _unusable(self.path, "read", error) from error

    def write_saved_copy(self, location: str, document: Document) -> None:
        """Save a copy of the published document."""
        saved = _SavedCopy(location=location, document=document.render().decode())
        self._replace(self.path / _SAVED_COPY, msgspec.json.encode(saved), mode=0o600)

    # --- helpers

    def _replace(self, path: Path, data: bytes, *, mode: int) -> None:
        with self._changing():
            self._disk.replace(path, data, mode=mode)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unusable(self.path, "write to", error) from error

    def _read_stamps(self) -> dict[str, _Stamp]:
        """Return the names of all key files, each with a stamp that changes with the file."""
        stamps: dict[str, _Stamp] = {}
        try:
            with os.scandir(self.path) as names:
                for found in names:
                    name = found.name
                    if name.endswith(_SUFFIXES):
                        stamps[name] = _stamp(found)
            found_folder = self.path.stat()
            stamps["."] = (found_folder.st_mode, found_folder.st_uid, 0, 0, 0)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _unusable(self.path, "read", error) from error
        return stamps

    def _check_mode(self) -> str:
        mode, uid, *_ = self._stamps.get(".", (0o700, 0, 0, 0, 0))
        who = others_who_can(stat.S_IWOTH, mode, uid)
        if who == "everybody":
            raise KeyFileError(
                f"everybody can write to the key folder {self.path}: "
                f"run  chmod o-w {shlex.quote(str(self.path))}, or name a folder inside it (--dir)"
            )
        return f"{who} can write to the key folder {self.path}" if who else ""

    def _entry(self, stem: str, names: dict[str, str]) -> Entry:
        # A file name need not be UTF-8, but the kid must be printable.
        kid = os.fsencode(stem).decode(errors="replace")
        private, public, state = (
            self._half(names[suffix], suffix) if suffix in names else None for suffix in _SUFFIXES
        )
        key = private.key if private else None
        record = state.record if state else None
        if record and key and record.thumbprint != key.thumbprint:
            record = None
        fault = _fault(stem, private, public, state, record)
        return Entry(
            kid=kid,
            files=tuple(self.path / names[suffix] for suffix in _SUFFIXES if suffix in names),
            key=None if fault else key,
            record=record,
            fault=fault,
            unsafe=bool(private and private.unsafe),
            public_missing=public is None,
            warning=private.warning if private else "",
        )

    def _half(self, name: str, suffix: str) -> _Half:
        stamp = self._stamps[name]
        cached = self._parsed.get(name)
        if cached and cached[0] == stamp:
            return cached[1]
        path = self.path / name
        try:
            half = _READERS[suffix](path)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                # Without its stamp the next scan reads the file again.
                del self._stamps[name]
                if cached:
                    # A key that was read before keeps signing while its file cannot be read.
                    return cached[1]
            fix = f"; {fix_of_denial(path)}" if error.errno in _DENIED else ""
            return _Half(fault=f"cannot be read: {error.strerror or 'input/output error'}{fix}")
        except KeyFileError as error:
            half = _Half(fault=error.message)
        self._parsed[name] = (stamp, half)
        return half


def _stamp(found: os.DirEntry[str]) -> _Stamp:
    try:
        result = found.stat()
    except OSError:
        # The file was deleted, or is a dangling link. Reading it shows which.
        return (0, 0, 0, 0, 0)
    return (result.st_mtime_ns, result.st_ctime_ns, result.st_size, result.st_ino, result.st_mode)


def _fault(
    stem: str, private: _Half | None, public: _Half | None, state: _Half | None, record: KeyRecord | None
) -> str:
    """Return why the key cannot be used; "" if it can be used."""
    if private is None:
        return "the private half is missing"
    key = private.key
    if key is None:
        return f"the private half {private.fault}"
    if key.kid != stem:
        return "the kid in the private key file does not match the file name"
    if state and state.fault:
        return f"the state file {state.fault}"
    if public is None:
        return "" if record else "the public half is missing"
    if public.fault:
        return f"the public half {public.fault}"
    if (public.kid, public.thumbprint) != (key.kid, key.thumbprint):
        return "the two halves belong to different keys"
    return ""


def _read_private(path: Path) -> _Half:
    data, status = _read(path)
    who = others_who_can(stat.S_IROTH | stat.S_IWOTH, status.st_mode, status.st_uid)
    if who == "everybody":
        can = "read" if status.st_mode & stat.S_IROTH else "write"
        return _Half(
            fault=f"is refused: everybody can {can} it; run  chmod 600 {shlex.quote(str(path))}",
            unsafe=True,
        )
    key = SigningKey.from_jwk(data, fallback_created_at=status.st_mtime)
    return _Half(
        key=key,
        warning=f"{who} can read {path}" if who else "",
    )


def _read_public(path: Path) -> _Half:
    data, _ = _read(path)
    members = parse_jwk(data)
    return _Half(kid=str(members.get("kid", "")), thumbprint=thumbprint_of(members))


def _read_record(path: Path) -> _Half:
    data, _ = _read(path)
    return _Half(record=KeyRecord.from_json(data))


_READERS: Final = {PRIVATE_SUFFIX: _read_private, PUBLIC_SUFFIX: _read_public, STATE_SUFFIX: _read_record}


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        return read_regular(path, _LARGEST_FILE)
    except ValueError as error:
        raise KeyFileError(str(error)) from None


def _unusable(path: Path, what: str, error: OSError) -> KeyFileError:
    fix = ""
    if error.errno in _DENIED:
        fix = f"; {fix_of_denial(path)}, or name another folder (--dir or TB_KEYS_DIR)"
    elif error.errno == errno.EROFS:
        fix = "; mount a volume there, or name another folder (--dir or TB_KEYS_DIR)"
    return KeyFileError(
        f"cannot {what} the key folder {path}: {error.strerror or 'input/output error'}{fix}",
        detail=str(error),
    )
