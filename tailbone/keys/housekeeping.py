"""Housekeeping: brings the folder in line with the published JWKS, for `tailbone server housekeeping`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.errors import KeyStateError, StoreError
from tailbone.keys.folder import age
from tailbone.keys.plan import plan_moves, plan_tidying
from tailbone.keys.record import Origin
from tailbone.keys.view import Read

if TYPE_CHECKING:
    from collections.abc import Collection

    from tailbone.keys.folder import Entry
    from tailbone.keys.observer import Observer
    from tailbone.keys.reconciler import Reconciler
    from tailbone.keys.view import View

_READ_S: Final = 5.0
"""How long the read of the JWKS is retried."""


class Housekeeping(msgspec.Struct, frozen=True, kw_only=True):
    """What housekeeping did, or would do.

    Attributes:
        moved: kids whose files go to ``removed/``.
        kept: kids that stay.
        finished: kids whose interrupted removal is finished.
        faulty: files that cannot be used and are left alone: kid and why.
        dry_run: whether this only reports what would be done.
    """

    moved: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    finished: tuple[str, ...] = ()
    faulty: tuple[tuple[str, str], ...] = ()
    dry_run: bool = False


async def clean_folder(observer: Observer, reconciler: Reconciler, *, force: bool) -> Housekeeping:
    """Move keys that are no longer published to ``removed/``, and finish interrupted changes.

    Keys are not confirmed, chosen, retired or generated. Arguments and errors are those of ``preview``.
    """
    async with reconciler.writing() as writer:
        writer.last_read = await _read(observer, force=force)
        view = writer.view()
        todo = housekeeping_of(view, force=force)
        await writer.clear_temporaries()
        await writer.apply(plan_moves(view, todo.moved))
        await writer.run_plan(plan_tidying)
    return todo


async def preview(observer: Observer, *, force: bool) -> Housekeeping:
    """Return what ``clean_folder`` would do. Nothing is changed.

    Args:
        observer: reads folder and JWKS.
        force: proceed even if the JWKS is missing, empty, unreadable or has none of the folder's keys.

    Raises:
        KeyStateError: the JWKS looks wrong and ``force`` is not given.
        StoreError: the JWKS could not be read and ``force`` is not given.
    """
    view = observer.view(await _read(observer, force=force))
    return msgspec.structs.replace(housekeeping_of(view, force=force), dry_run=True)


async def _read(observer: Observer, *, force: bool) -> Read:
    try:
        return await observer.read(until=observer.monotonic() + _READ_S)
    except StoreError:
        if not force:
            raise
        return Read(None)


def housekeeping_of(view: View, *, force: bool) -> Housekeeping:
    """Return what housekeeping has to do; with ``force``, whatever the JWKS looks like.

    Raises:
        KeyStateError: the JWKS looks wrong and ``force`` is not given.
    """
    entries = sorted(view.entries.values(), key=age)
    removing = [entry for entry in entries if entry.is_removing]
    usable = [entry for entry in entries if entry.key and entry not in removing]
    moved = [entry for entry in usable if not view.in_document(entry) and not _is_new(entry)]
    if moved and not force:
        _check_document(view, usable, len(moved))
    return Housekeeping(
        moved=tuple(entry.kid for entry in moved),
        kept=tuple(entry.kid for entry in usable if entry not in moved),
        finished=tuple(entry.kid for entry in removing),
        faulty=tuple((entry.kid, entry.fault) for entry in entries if entry.fault and entry not in removing),
    )


def _is_new(entry: Entry) -> bool:
    """Return whether the key was generated here and has never been published, so that it is not obsolete."""
    record = entry.record
    return record is not None and record.origin is not Origin.FOUND and not record.published_at


def _check_document(view: View, usable: Collection[Entry], moved: int) -> None:
    """Raise KeyStateError if the document looks wrong, since keys would be moved because of it."""
    if view.document is None:
        why = "is missing"
    elif not view.document.keys:
        why = "is empty"
    elif not any(view.in_document(entry) for entry in usable):
        why = "holds none of this folder's keys"
    else:
        return
    raise KeyStateError(
        f"the published JWKS {why}: nothing was moved; --force would move {moved} of {len(usable)} keys"
    )
