"""The Key message: the one type of a key, from the service to the table of `tailbone keys`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tailbone.admin._proto import admin_pb2 as pb
from tailbone.errors import UnknownKeyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailbone.keys.listing import KeyInfo

SEE_THE_KEYS: Final = "`tailbone keys list` shows the keys"

LAST_SECOND: Final = 253_402_300_799
"""The end of the year 9999 in Unix seconds, the latest that a date can show."""


def key_message(info: KeyInfo) -> pb.Key:
    """Return a key as a message."""
    what, when = info.next_change or ("", 0)
    return pb.Key(
        key_id=_encodable(info.key_id),
        algorithm=_encodable(info.algorithm),
        created_at=_second(info.created_at),
        state=info.state,
        foreign=info.foreign,
        next_change=what,
        next_change_at=_second(when),
        fault=_encodable(info.fault),
    )


def can_sign(key: pb.Key) -> bool:
    """Return whether a key signs, or would if all others were removed.

    A server that is too old to report states lists only such keys.
    """
    return not key.foreign and key.state in ("", "active", "retiring", "published")


def removal_warning(keys: Sequence[pb.Key], key_id: str) -> str:
    """Return the effect of removing a key, in full sentences, for the confirmation prompt.

    Args:
        keys: all keys that the server lists.
        key_id: the key to remove.

    Raises:
        UnknownKeyError: the server does not list such a key.
    """
    key = next((each for each in keys if each.key_id == key_id), None)
    if key is None:
        raise UnknownKeyError(f"the server has no key {key_id!r}; {SEE_THE_KEYS}")
    warning = f"Tokens signed with {key_id} stop verifying."
    if key.foreign:
        return f"{key_id} is not one of this server's keys: another server may sign with it. {warning}"
    if can_sign(key) and not any(can_sign(each) for each in keys if each is not key):
        return (
            f"{key_id} is the last key that can sign: no tokens can be issued until you run "
            f"`tailbone keys generate`. "
            f"{warning}"
        )
    return warning


def folder_keys(path: str) -> tuple[pb.Key, ...]:
    """Return the keys in a folder, oldest first; those that cannot be used have a fault.

    Args:
        path: the key folder, ``keys.dir``.

    Raises:
        KeyFileError: there is no such folder, or it cannot be read.
    """
    # Only --local needs these imports, which take as long as the rest of the command.
    from tailbone.keys.folder import KeyFolder
    from tailbone.keys.listing import list_folder

    folder = KeyFolder(Path(path))
    folder.require()
    return tuple(map(key_message, list_folder(folder.scan())))


def _encodable(text: str) -> str:
    """Return text that protobuf can encode: a foreign kid may have unpaired surrogates."""
    return text.encode(errors="backslashreplace").decode()


def _second(at: float | None) -> int:
    """Return a time in Unix seconds; 0 for none, and for a foreign key's time beyond the calendar."""
    return int(at) if at is not None and 0 < at <= LAST_SECOND else 0
