"""Plan: the next steps for the keys of a folder, computed from a view. Pure.

Steps depend only on the view, never on earlier steps. A process that starts after a kill therefore does what
the killed process would have done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.jwks.document import Document
from tailbone.keys.folder import Entry, age
from tailbone.keys.record import CONFIRMED, OWN_LOCATION, KeyRecord, Origin, Phase, Removal
from tailbone.keys.signing_key import SigningKey  # noqa: TC001 -- msgspec resolves it

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from tailbone.keys.view import View

_EMPTY: Final = Document.empty()
_ROTATION_LEAD_S: Final = 60.0
# A clock that was set forward must not end a wait at once: each process also watches for this long itself.
_MIN_WATCH_S: Final = 30.0
_REVOKED: Final = "key was found in the folder and is not in the JWKS: it was revoked, so it never signs"


# --- steps: each is one change to the folder or the document


class WriteRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Write a key's new record; ``event`` is logged."""

    kid: str
    record: KeyRecord
    event: str
    warn: bool = False


class WritePublic(msgspec.Struct, frozen=True, kw_only=True):
    """Write a public half that is missing after a kill."""

    key: SigningKey


class RemoveFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Delete a key's files, or move them to ``removed/``."""

    entry: Entry
    how: Removal


class SaveCopy(msgspec.Struct, frozen=True, kw_only=True):
    """Save a copy of the document in the folder, for a start while the store is unreachable."""

    document: Document


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    """Change the document.

    Attributes:
        put: keys to add.
        amend: keys whose entries lack members. A key that has left the document is not added again.
        drop: kid and thumbprint of keys to remove; without a thumbprint, every key of that kid.
        event: logged when the change is done.
    """

    put: tuple[SigningKey, ...] = ()
    amend: tuple[SigningKey, ...] = ()
    drop: tuple[tuple[str, str], ...] = ()
    event: str = ""

    def edit(self, document: Document | None) -> Document | None:
        """Return the changed document. A key is not added if another server's key has its kid.

        Raises:
            KeyStateError: the document would contain too many keys.
        """
        # Removals come first, to make room.
        for kid, thumbprint in self.drop:
            if document:
                document = document.without(kid, thumbprint)
        for key in self.put:
            document = document or _EMPTY
            if document.has(key.kid, key.thumbprint) or not document.has_kid(key.kid):
                document = document.with_key(key.public_jwk(), key.thumbprint)
        for key in self.amend:
            if document and document.has(key.kid, key.thumbprint):
                document = document.with_key(key.public_jwk(), key.thumbprint)
        return document


Step = WriteRecord | WritePublic | RemoveFiles | SaveCopy | Publish


# --- plans


def plan(view: View) -> list[Step]:
    """Return the next steps. Carry them out and call again until the list is empty.

    The steps come from the first part that has any. Publishing runs last and by itself, so keys being removed
    have already stopped signing.
    """
    return _first_nonempty(
        view,
        _repair_files,
        _compare_with_document,
        _choose_signer,
        _remove_files,
        _save_copy,
        _update_document,
    )


def key_due(view: View) -> Origin | None:
    """Return why a key has to be generated once the plan has no steps; None if there is no reason."""
    candidates = [
        entry for entry in view.usable if view.phase(entry) not in (Phase.REMOVING, Phase.UNPUBLISHED)
    ]
    if not candidates and view.needs_first_key:
        return Origin.FIRST
    signing, rotate_s = view.signing, view.settings.rotate_every_s
    if not rotate_s or signing is None or signing.record is None:
        return None
    if any(age(entry) > age(signing) for entry in candidates):
        return None
    lead_s = view.settings.activate_after_s + _ROTATION_LEAD_S
    is_due = view.remaining_s(signing, signing.record.since + rotate_s, rotate_s) <= lead_s
    return Origin.NEXT if is_due else None


def plan_tidying(view: View) -> list[Step]:
    """Return the next of the steps that finish interrupted changes.

    They do not confirm, choose, retire or generate a key, and do not create a document: housekeeping may run
    with other settings than the server.
    """
    return _first_nonempty(view, _repair_files, _remove_files, *([_update_document] if view.document else []))


def plan_removal(view: View, kid: str) -> list[Step]:
    """Return the steps that begin to remove a key on request. The plan finishes the removal of an own key."""
    entry = view.entries.get(kid)
    if entry is None:
        return [Publish(drop=((kid, ""),))]
    # A key whose files cannot be read is not deleted, since they may be the only copy.
    return _mark_all(view, [kid], Removal.DELETE if entry.key else Removal.MOVE)


def plan_moves(view: View, kids: Collection[str]) -> list[Step]:
    """Return the steps that begin to move own keys to ``removed/``. ``plan_tidying`` finishes them."""
    return _mark_all(view, kids, Removal.MOVE)


def _mark_all(view: View, kids: Collection[str], removal: Removal) -> list[Step]:
    """Return the steps that mark own keys as being removed. If one of them signs, another key signs first.

    If a key's files are damaged, its thumbprint is taken from the document.
    """
    steps: list[Step] = [*_successor(view, leaving=kids)] if _signer_in(view, kids) else []
    for kid in kids:
        entry = view.entries[kid]
        keys = view.document.keys if view.document else ()
        published = next((key.thumbprint for key in keys if key.kid == kid), "")
        record = entry.record or KeyRecord.new(entry.thumbprint or published, Origin.FOUND, now=view.now)
        steps.append(_mark_removing(view, entry, record, "key is being removed", removal))
    return steps


def plan_giving_up(view: View, kid: str) -> list[Step]:
    """Return the steps that delete a new key that is certainly not published."""
    entry = view.entries.get(kid)
    if entry is None or entry.record is None or entry.record.published_at:
        return []
    event = "key could not be published: it is given up"
    mark = _mark_removing(view, entry, entry.record, event, Removal.DELETE)
    return [mark, RemoveFiles(entry=entry, how=Removal.DELETE)]


def _first_nonempty(view: View, *parts: Callable[[View], Iterable[Step]]) -> list[Step]:
    """Return the steps of the first part that has any. The other parts wait for the next call."""
    return next(filter(None, (list(part(view)) for part in parts)), [])


def next_created_at(entries: Iterable[Entry], now: float) -> int:
    """Return the creation time of the next key, in unix seconds.

    This is ``now``, unless the clock was set back: a key must not look older than the one before it.
    """
    created_at = int(now)
    newest_at, newest_made_at, _ = max(map(age, entries), default=(0.0, 0.0, ""))
    return int(newest_at) + 1 if (created_at, now) < (newest_at, newest_made_at) else created_at


# --- the parts of a plan


def _repair_files(view: View) -> Iterator[Step]:
    """Finish writing or removing files after a kill."""
    for entry in view.entries.values():
        if entry.key is not None and entry.public_missing:
            yield WritePublic(key=entry.key)
        elif entry.is_leftover:
            yield RemoveFiles(entry=entry, how=Removal.DELETE)


def _compare_with_document(view: View) -> Iterator[Step]:
    """Compare each key with the document."""
    if view.last_read is None:
        return
    if _signer_in(view, view.revoked):
        yield from _successor(view)
    for entry in view.usable:
        phase = view.phase(entry)
        if phase is Phase.REMOVING:
            continue
        if view.in_document(entry):
            if phase in (Phase.PENDING, Phase.UNPUBLISHED):
                yield _confirm(view, entry)
        elif entry.record is None:
            yield _adopt(view, entry)
        elif phase is Phase.PENDING:
            yield from _resolve_absent(view, entry, entry.record)
        elif phase is not Phase.UNPUBLISHED and entry.kid in view.revoked:
            event = "key was revoked elsewhere: it stops signing and moves to removed/"
            yield _mark_removing(view, entry, entry.record, event, Removal.MOVE, warn=True)


def _confirm(view: View, entry: Entry) -> Step:
    """Confirm a key that was read back from the document."""
    assert view.last_read is not None  # noqa: S101 -- in_document was true
    record = entry.record or KeyRecord.new(entry.thumbprint, Origin.FOUND, now=view.now)
    signs_from = view.now + _wait_s(view, record)
    waiting = {other.kid for other in view.usable if other.record and view.phase(other) is Phase.PENDING}
    alone = view.document is not None and all(key.kid in waiting for key in view.document.keys)
    if entry.kid in view.last_read.fresh or alone:
        signs_from = view.now
    elif entry.record is None and not view.had_signer and entry.key:
        # Another program may have signed with this key since it was created.
        signs_from = min(view.now, entry.key.created_at)
    record = record.published(view.location, now=view.now, signs_from=signs_from)
    in_document = (other for other in view.usable if view.in_document(other))
    if (
        record.phase is Phase.PUBLISHED
        and signs_from <= view.now
        and view.signing is None
        # Of several keys that could start to sign now, only the newest does.
        and entry is max(in_document, key=age)
    ):
        # In the same write, so that no process sees a folder without a signing key.
        record = record.active(now=view.now, expiry_s=view.settings.expiry_s)
    return WriteRecord(kid=entry.kid, record=record, event="key is published")


def _wait_s(view: View, record: KeyRecord) -> float:
    """Return how long a published key waits: until caches have expired, and in a rotation until its turn."""
    settings, signing = view.settings, view.signing
    wait_s = settings.activate_after_s
    if record.origin is Origin.NEXT and settings.rotate_every_s and signing and signing.record:
        turn_at = signing.record.since + settings.rotate_every_s
        wait_s = max(wait_s, view.remaining_s(signing, turn_at, settings.rotate_every_s))
    return wait_s


def _adopt(view: View, entry: Entry) -> Step:
    """Return the record of a key that was found in the folder and is not in the document."""
    record = KeyRecord.new(entry.thumbprint, Origin.FOUND, now=view.now, location=view.location)
    if view.document is not None:
        return _mark_unpublished(view, entry, record, _REVOKED)
    return WriteRecord(
        kid=entry.kid, record=record, event="key was found in the folder: it will be published"
    )


def _resolve_absent(view: View, entry: Entry, record: KeyRecord) -> Iterator[Step]:
    """Refuse or give up a pending key that cannot be published."""
    kid_in_use = view.document is not None and view.document.has_kid(entry.kid)
    is_found = record.origin is Origin.FOUND
    if kid_in_use and not is_found and not record.published_at:
        event = "another server was first with this kid: the key is given up"
        yield _mark_removing(view, entry, record, event, Removal.DELETE)
    elif kid_in_use:
        # It may have signed elsewhere, so it is never deleted.
        event = "another key of that kid is in the JWKS: this one never signs"
        yield _mark_unpublished(view, entry, record, event)
    elif is_found and record.location == OWN_LOCATION != view.location and view.document:
        # A process without a bucket found it, and could not see that it was revoked.
        yield _mark_unpublished(view, entry, record, _REVOKED)


def _choose_signer(view: View) -> Iterator[Step]:
    """Choose the key that signs, and retire or remove keys whose time has come."""
    settings, signing = view.settings, view.signing
    due = [entry for entry in view.usable if view.phase(entry) is Phase.PUBLISHED and view.wait_s(entry) <= 0]
    if due and (signing is None or age(due[-1]) > age(signing)):
        yield _activate(view, due[-1], "key activated")
        return
    if signing is None or signing.record is None:
        if view.had_signer or any(_has_signed(view, entry) for entry in view.entries.values()):
            yield from _successor(view)
        return
    if signing.record.expiry_s < settings.expiry_s:
        longer = signing.record.with_expiry(settings.expiry_s)
        yield WriteRecord(kid=signing.kid, record=longer, event="token lifetime of the signing key extended")
        return
    for entry in view.usable:
        record, phase = entry.record, view.phase(entry)
        if record is None or entry is signing:
            continue
        if phase is Phase.ACTIVE or entry in due:
            # An adopted key may have signed before it had a record.
            record = record.with_expiry(settings.expiry_s)
            record = record.retiring(now=view.now, max_age_s=settings.max_age_s)
            yield WriteRecord(kid=entry.kid, record=record, event="key no longer signs")
        elif phase is Phase.RETIRING and settings.rotate_every_s and _has_ended(view, entry, record):
            event = "key's last token has expired: it is removed"
            yield _mark_removing(view, entry, record, event, Removal.DELETE)


def _has_signed(view: View, entry: Entry) -> bool:
    """Return whether a key has signed, and is retiring or being removed."""
    return bool(
        entry.record and entry.record.expiry_s and view.phase(entry) in (Phase.RETIRING, Phase.REMOVING)
    )


def _has_ended(view: View, entry: Entry, record: KeyRecord) -> bool:
    """Return whether a retiring key's last token has expired."""
    full_s = record.ends_at - record.since
    return view.remaining_s(entry, record.ends_at, full_s, at_least_s=_MIN_WATCH_S) <= 0


def _signer_in(view: View, kids: Collection[str]) -> bool:
    """Return whether the signing key is one of these."""
    return view.signing is not None and view.signing.kid in kids


def _successor(view: View, leaving: Collection[str] = ()) -> Iterator[Step]:
    """Activate the newest published key at once, even during its wait, before another key stops signing."""
    published = [
        entry
        for entry in view.usable
        if view.phase(entry) in CONFIRMED
        and entry.kid not in leaving
        and entry.kid not in view.revoked
        and (view.last_read is None or view.in_document(entry))
    ]
    if published:
        entry = published[-1]
        waits = view.phase(entry) is Phase.PUBLISHED
        event = "the signing key is gone: this one signs at once"
        event += ", though some caches may not have it yet" if waits else ""
        yield _activate(view, entry, event, warn=waits)


def _remove_files(view: View) -> Iterator[Step]:
    """Remove the files of keys that are being removed and have left the document."""
    for entry in view.entries.values():
        if view.last_read and entry.record and entry.is_removing and not view.in_document(entry):
            yield RemoveFiles(entry=entry, how=entry.record.removal)


def _save_copy(view: View) -> Iterator[Step]:
    """Save a copy of the document if the saved one differs."""
    if view.document is not None and view.location != OWN_LOCATION and view.document != view.saved_copy:
        yield SaveCopy(document=view.document)


def _update_document(view: View) -> Iterator[Step]:
    """Add or amend keys that the document should contain, and drop keys that are being removed."""
    if view.last_read is None:
        return
    document, event = view.document, ""
    put: list[SigningKey] = []
    amend: list[SigningKey] = []
    for entry in view.usable:
        key, record, phase = entry.key, entry.record, view.phase(entry)
        if key is None or record is None or phase in (Phase.REMOVING, Phase.UNPUBLISHED):
            continue
        if document and document.has_kid(key.kid):
            if document.lacks_members(key.kid, key.thumbprint, key.public_jwk()):
                amend.append(key)
        elif phase is not Phase.PENDING:
            # Confirmed keys are added again only if the whole document is missing.
            if document is None:
                put.append(key)
                event = "the JWKS was missing: this server's keys are published again"
        else:
            put.append(key)
    removing = [entry for entry in view.entries.values() if entry.is_removing and view.in_document(entry)]
    drop = [(entry.kid, entry.thumbprint) for entry in removing]
    if put or amend or drop:
        yield Publish(put=tuple(put), amend=tuple(amend), drop=tuple(drop), event=event)


# --- records


def _activate(view: View, entry: Entry, event: str, *, warn: bool = False) -> Step:
    assert entry.record is not None  # noqa: S101 -- published keys have one
    record = entry.record.active(now=view.now, expiry_s=view.settings.expiry_s)
    return WriteRecord(kid=entry.kid, record=record, event=event, warn=warn)


def _mark_unpublished(view: View, entry: Entry, record: KeyRecord, event: str) -> Step:
    record = record.unpublished(view.location, now=view.now)
    return WriteRecord(kid=entry.kid, record=record, event=event, warn=True)


def _mark_removing(
    view: View, entry: Entry, record: KeyRecord, event: str, how: Removal, *, warn: bool = False
) -> Step:
    return WriteRecord(kid=entry.kid, record=record.removing(how, now=view.now), event=event, warn=warn)
