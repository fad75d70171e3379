"""Keys as the ``keys`` commands show them, told by a server or found in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.errors import UnknownKeyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailbone.keys.listing import KeyInfo

SEE_THE_KEYS: Final = "`tailbone keys list` shows the keys"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key.

    Attributes:
        key_id: the kid.
        algorithm: "RS256" or "ES256"; what the JWKS says for a foreign key.
        created_at: unix seconds; 0 when it cannot be told.
        state: as in ``keys.listing.KeyInfo``; empty from a server that has no such field.
        foreign: in the JWKS, but not one of this server's.
        next_change: what happens to it next by itself, as in ``KeyInfo``; empty for nothing.
        next_change_at: when, in unix seconds; 0 where no time can be given.
        fault: why the files of a key in the folder cannot be used; empty when they can.
    """

    key_id: str
    algorithm: str = ""
    created_at: int = 0
    state: str = ""
    foreign: bool = False
    next_change: str = ""
    next_change_at: int = 0
    fault: str = ""

    @property
    def can_sign(self) -> bool:
        """Whether it signs, or would if all others went; a server without states tells of such keys."""
        return not self.foreign and self.state in ("", "active", "retiring", "published")


def removal_warning(keys: Sequence[Key], key_id: str) -> str:
    """Say what it means to remove a key, in full sentences, for the question whether to do it.

    Args:
        keys: all that the server knows.
        key_id: the one to remove.

    Raises:
        UnknownKeyError: it is none of them.
    """
    key = next((each for each in keys if each.key_id == key_id), None)
    if key is None:
        raise UnknownKeyError(f"the server has no key {key_id!r}; {SEE_THE_KEYS}")
    warning = f"Tokens signed with {key_id} stop verifying."
    if key.foreign:
        return f"{key_id} is not one of this server's keys: another may be signing with it. {warning}"
    if key.can_sign and not any(each.can_sign for each in keys if each is not key):
        return (
            f"{key_id} is the last key that can sign: no token is issued until `tailbone keys generate`. "
            f"{warning}"
        )
    return warning


def folder_keys(path: str) -> tuple[Key, ...]:
    """Give the keys in a folder, oldest first, those that cannot be used with the reason.

    Args:
        path: the key folder, ``keys.dir``.

    Raises:
        KeyFileError: there is no such folder, or it may not be used at all.
    """
    # Costs as much as all the rest of the command, and only --local needs it.
    from tailbone.keys.listing import list_local

    return tuple(map(_of_info, list_local(Path(path))))


def _of_info(info: KeyInfo) -> Key:
    what, when = info.next_change or ("", 0.0)
    return Key(
        key_id=info.key_id,
        algorithm=info.algorithm,
        created_at=info.created_at,
        state=info.state,
        next_change=what,
        next_change_at=int(when),
        fault=info.fault,
    )
