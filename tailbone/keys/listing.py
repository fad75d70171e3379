"""Listing: the keys of a view or of a folder, as `tailbone keys list` shows them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tailbone.keys.folder import age
from tailbone.keys.record import CONFIRMED, Phase
from tailbone.keys.signing_key import created_at_of

if TYPE_CHECKING:
    from tailbone.keys.folder import Entry, Snapshot
    from tailbone.keys.record import KeyRecord
    from tailbone.keys.settings import KeySettings
    from tailbone.keys.view import View


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One key, as listings show it.

    Attributes:
        key_id: the kid; "" for a foreign key without one.
        algorithm: "" for a foreign key without one.
        created_at: unix seconds; 0 if unknown.
        state: a ``Phase``, or "faulty" for files that cannot be used.
        foreign: whether its private half is not in this folder.
        next_change: what happens to it next, and when in unix seconds, 0 if unknown; None if nothing happens
            without a request. "published", "signs", "retires", "removed", or "removable" once the last token
            that it signed has expired.
        fault: what is wrong with its files, and how to fix it.
    """

    key_id: str
    algorithm: str
    created_at: int
    state: str
    foreign: bool = False
    next_change: tuple[str, float] | None = None
    fault: str = ""


def list_keys(view: View) -> tuple[KeyInfo, ...]:
    """List the keys of the document and own keys that are not in it yet, oldest first."""
    document = view.document
    own = [
        _describe(entry, view.phase(entry), view)
        for entry in view.entries.values()
        if (entry.key and view.phase(entry) in (*CONFIRMED, Phase.PENDING))
        or (entry.fault and document and document.has_kid(entry.kid))
    ]
    ours = {(entry.kid, entry.thumbprint) for entry in view.entries.values()}
    foreign = [
        KeyInfo(
            key_id=key.kid,
            algorithm=key.algorithm,
            created_at=created_at_of(key.kid) or 0,
            state=Phase.PUBLISHED.value,
            foreign=True,
        )
        for key in (document.keys if document else ())
        if (key.kid, key.thumbprint) not in ours
    ]
    return tuple(sorted([*own, *foreign], key=lambda info: (info.created_at, info.key_id)))


def list_folder(snapshot: Snapshot) -> list[KeyInfo]:
    """List the keys of a folder without its document, oldest first, each as it was last published."""
    entries = sorted(snapshot.entries.values(), key=age)
    return [_describe(entry, entry.record.phase if entry.record else Phase.PENDING) for entry in entries]


def _describe(entry: Entry, phase: Phase, view: View | None = None) -> KeyInfo:
    if entry.key is None:
        created_at = created_at_of(entry.kid) or 0
        return KeyInfo(
            key_id=entry.kid, algorithm="", created_at=created_at, state="faulty", fault=entry.fault
        )
    if view and phase is Phase.ACTIVE and entry != view.signing:
        phase = Phase.RETIRING
    return KeyInfo(
        key_id=entry.kid,
        algorithm=entry.key.algorithm,
        created_at=int(entry.key.created_at),
        state=phase.value,
        next_change=_next_change(entry.record, phase, view.settings if view else None),
    )


def _next_change(
    record: KeyRecord | None, phase: Phase, settings: KeySettings | None
) -> tuple[str, float] | None:
    if record is None:
        # The key has not been compared with the JWKS yet.
        return None
    if phase is Phase.PENDING:
        return ("published", 0.0)
    if phase is Phase.PUBLISHED:
        return ("signs", record.signs_from)
    if settings is None:
        return None
    rotates = bool(settings.rotate_every_s)
    if phase is Phase.ACTIVE and rotates:
        return ("retires", record.since + settings.rotate_every_s)
    if phase is Phase.RETIRING and record.ends_at:
        return ("removed" if rotates else "removable", record.ends_at)
    return None
