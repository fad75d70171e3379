"""What housekeeping has to do in a folder: pure, from the folder and the published JWKS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tailbone.errors import KeyStateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailbone.keys.folder import Entry
    from tailbone.keys.knowledge import Read


class Housekeeping(msgspec.Struct, frozen=True, kw_only=True):
    """What housekeeping did, or would do.

    Attributes:
        moved: kids whose files go to ``removed/``.
        kept: kids that stay.
        finished: kids whose removal had begun and is brought to its end.
        faulty: files that cannot be used and are left alone: kid and why.
        dry_run: nothing was changed.
    """

    moved: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    finished: tuple[str, ...] = ()
    faulty: tuple[tuple[str, str], ...] = ()
    dry_run: bool = False


def housekeeping_of(entries: Sequence[Entry], seen: Read, *, force: bool) -> Housekeeping:
    """Find what is to be done.

    Args:
        entries: what is in the folder.
        seen: the published JWKS.
        force: whatever that JWKS looks like.

    Raises:
        KeyStateError: the JWKS looks wrong and ``force`` is not given.
    """
    going = [entry for entry in entries if entry.state and entry.state.removing]
    usable = [entry for entry in entries if entry.key and entry not in going]
    gone = [entry for entry in usable if not _stands(entry, seen) and not _is_new(entry)]
    if gone and not force:
        _refuse_odd(seen, usable, len(gone))
    return Housekeeping(
        moved=tuple(entry.kid for entry in gone),
        kept=tuple(entry.kid for entry in usable if entry not in gone),
        finished=tuple(entry.kid for entry in going),
        faulty=tuple((entry.kid, entry.fault) for entry in entries if entry.fault and entry not in going),
    )


def _stands(entry: Entry, seen: Read) -> bool:
    return entry.key is not None and seen.has(entry.key)


def _is_new(entry: Entry) -> bool:
    """Whether the key was made here and never published: it is on its way in, not out."""
    return entry.state is not None and entry.state.origin != "adopted" and not entry.state.place


def _refuse_odd(seen: Read, usable: Sequence[Entry], gone: int) -> None:
    """A document that looks wrong must not cost the folder its keys."""
    if seen.document is None:
        why = "is missing"
    elif not seen.document.keys:
        why = "is empty"
    elif not any(_stands(entry, seen) for entry in usable):
        why = "holds none of this folder's keys"
    else:
        return
    raise KeyStateError(
        f"the published JWKS {why}: nothing was moved; --force would move {gone} of {len(usable)} keys"
    )
