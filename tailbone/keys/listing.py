"""Listings of keys, with and without a running server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from tailbone.keys.folder import KeyFolder, age, no_such_folder
from tailbone.keys.record import UNSETTLED_S, Phase
from tailbone.keys.signing_key import created_at_of

if TYPE_CHECKING:
    from pathlib import Path

    from tailbone.jwks.document import Document
    from tailbone.keys.folder import Entry
    from tailbone.keys.settings import KeySettings


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One key, as listings show it.

    Attributes:
        key_id: the kid; "" for a foreign key without one.
        algorithm: "" when a foreign key does not say.
        created_at: unix seconds; 0 when unknown.
        state: pending, published, active, retiring, unpublished; "faulty" for files that cannot be used.
        foreign: its private half is not in this folder.
        next_change: what happens to it next and when, in unix seconds, 0 when no time can be given; None when
            nothing happens by itself. "published", "given up", "signs", "retires", "removed", or
            "removable": the last token that it signed has expired.
        fault: what is wrong with its files, and how to fix it.
    """

    key_id: str
    algorithm: str
    created_at: int
    state: str
    foreign: bool = False
    next_change: tuple[str, float] | None = None
    fault: str = ""


def describe(
    entry: Entry, *, place: str, now: float, settings: KeySettings | None, signing: str = ""
) -> KeyInfo:
    """Describe an own key.

    Args:
        entry: the key in the folder.
        place: the document that counts; "" for whichever it was last published in.
        now: unix seconds.
        settings: as in force; None when unknown.
        signing: the kid that signs; "" when unknown.
    """
    created_at = int(entry.key.created_at) if entry.key else created_at_of(entry.kid) or 0
    algorithm = entry.key.algorithm if entry.key else ""
    if entry.key is None:
        return KeyInfo(
            key_id=entry.kid, algorithm=algorithm, created_at=created_at, state="faulty", fault=entry.fault
        )
    record = entry.record
    phase = Phase.PENDING
    if record is not None:
        phase = record.phase_at(place) if place else record.phase
    if phase is Phase.ACTIVE and signing and signing != entry.kid:
        phase = Phase.RETIRING
    return KeyInfo(
        key_id=entry.kid,
        algorithm=algorithm,
        created_at=created_at,
        state=phase.value,
        next_change=_next_change(entry, phase, settings, now),
    )


def describe_foreign(document: Document, own: set[tuple[str, str]]) -> list[KeyInfo]:
    """Describe the document's other keys; ``own`` holds kid and thumbprint of ours."""
    return [
        KeyInfo(
            key_id=key.kid,
            algorithm=key.algorithm,
            created_at=created_at_of(key.kid) or 0,
            state=Phase.PUBLISHED.value,
            foreign=True,
        )
        for key in document.keys
        if (key.kid, key.thumbprint) not in own
    ]


def list_local(path: Path) -> list[KeyInfo]:
    """List the keys of a folder, the oldest first, broken ones too, without a server or a change.

    Raises:
        KeyFileError: there is no such folder, or it may not be used.
    """
    if not path.is_dir():
        raise no_such_folder(path)
    entries = sorted(KeyFolder(path).scan().entries.values(), key=age)
    return [describe(entry, place="", now=time.time(), settings=None) for entry in entries]


def _next_change(
    entry: Entry, phase: Phase, settings: KeySettings | None, now: float
) -> tuple[str, float] | None:
    record = entry.record
    if record is None:
        # It has not been compared with the JWKS yet.
        return None
    if phase is Phase.PENDING:
        asked = record.origin == "asked" and not record.published_at
        if asked and now - record.since > UNSETTLED_S / 2:
            # No request waits for it any more; only a write in flight could still publish it.
            return ("given up", record.since + UNSETTLED_S)
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
