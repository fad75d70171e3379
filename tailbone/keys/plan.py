"""What has to be done next for the keys of a folder: pure, from a view.

Every step follows from what is on disk and in the document alone, so that the process that comes after a kill
does what the killed process would have done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.errors import KeyStateError
from tailbone.jwks.document import Document
from tailbone.keys.folder import Entry, age
from tailbone.keys.record import CONFIRMED, OWN_PLACE, UNSETTLED_S, KeyRecord, Origin, Phase, Removal
from tailbone.keys.signing_key import SigningKey  # noqa: TC001 -- msgspec resolves it
from tailbone.keys.view import TWO_LOOKS_S, View

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

_EMPTY: Final = Document.empty()
_ROTATION_LEAD_S: Final = 60.0
_REVOKED: Final = "key was found in the folder and is not in the JWKS: it was revoked, so it never signs"


# --- steps: each is one change of folder or document


class WriteRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Keep a key's new record; ``event`` says for the log what it means."""

    kid: str
    record: KeyRecord
    event: str
    warn: bool = False


class WritePublic(msgspec.Struct, frozen=True, kw_only=True):
    """Write a public half that a kill kept from being written."""

    key: SigningKey


class Clear(msgspec.Struct, frozen=True, kw_only=True):
    """Delete a key's files, or move them to ``removed/``."""

    entry: Entry
    how: Removal


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """Keep the document in the folder, for a start without the store."""

    document: Document


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    """Change the document.

    Attributes:
        put: keys to put in.
        amend: keys whose entries say too little; one that is gone by now is not put back.
        drop: kid and thumbprint of those to take out; without a thumbprint every key of that kid.
        event: for the log, when it is done.
    """

    put: tuple[SigningKey, ...] = ()
    amend: tuple[SigningKey, ...] = ()
    drop: tuple[tuple[str, str], ...] = ()
    event: str = ""

    def edit(self, document: Document | None) -> Document | None:
        """Return the document as it should be; a key whose kid another server has taken stays out.

        Raises:
            KeyStateError: the document would hold too many keys.
        """
        # First of all, to make room.
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


class Make(msgspec.Struct, frozen=True, kw_only=True):
    """Write the pair of a new key."""

    origin: Origin


Step = WriteRecord | WritePublic | Clear | Keep | Publish | Make


# --- plans


def plan(view: View) -> list[Step]:
    """Return the next steps, in order; after them look again, until there are none.

    Publishing comes late and alone: what is to stop signing has stopped by then. A key is made last, so that
    nothing else waits for it.
    """
    if view.follows:
        return []
    return _first(view, _repair, _compare, _choose, _clear, _keep, _publish, _make)


def plan_tidying(view: View) -> list[Step]:
    """Plan only what is half done: housekeeping may have other settings than the server.

    No key is confirmed, chosen, retired or made, and no document where there is none.
    """
    return _first(view, _repair, _clear, *([_publish] if view.document else []))


def plan_removal(view: View, kids: Collection[str], removal: Removal) -> list[Step]:
    """Record that keys are on their way out; if one of them signs, another key signs first.

    Where the folder no longer shows which key it was, the document does.
    """
    steps: list[Step] = [*_successor(view, leaving=kids)] if _signs(view, kids) else []
    for kid in kids:
        entry = view.entries[kid]
        keys = view.document.keys if view.document else ()
        published = next((key.thumbprint for key in keys if key.kid == kid), "")
        record = entry.record or KeyRecord.new(entry.thumbprint or published, "adopted", now=view.now)
        steps.append(_remove(view, entry, record, "key is being removed", removal))
    return steps


def plan_giving_up(view: View, kid: str) -> list[Step]:
    """Delete the pair of a key that was made and is certainly not published."""
    entry = view.entries.get(kid)
    if entry is None or entry.record is None or entry.record.published_at:
        return []
    event = "key could not be published: it is given up"
    return [_remove(view, entry, entry.record, event), Clear(entry=entry, how="delete")]


def _first(view: View, *parts: Callable[[View], Iterable[Step]]) -> list[Step]:
    """Return the steps of the first part that has any."""
    return next(filter(None, (list(part(view)) for part in parts)), [])


class Housekeeping(msgspec.Struct, frozen=True, kw_only=True):
    """What housekeeping did, or would do.

    Attributes:
        moved: kids whose files go to ``removed/``.
        kept: kids that stay.
        finished: kids whose removal had begun and is finished.
        faulty: files that cannot be used and are left alone: kid and why.
        dry_run: nothing was changed.
    """

    moved: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    finished: tuple[str, ...] = ()
    faulty: tuple[tuple[str, str], ...] = ()
    dry_run: bool = False


def housekeeping_of(view: View, *, force: bool) -> Housekeeping:
    """Find what housekeeping has to do; ``force`` does it whatever the JWKS looks like.

    Raises:
        KeyStateError: the JWKS looks wrong and ``force`` is not given.
    """
    entries = sorted(view.entries.values(), key=age)
    going = [entry for entry in entries if entry.is_removing]
    usable = [entry for entry in entries if entry.key and entry not in going]
    gone = [entry for entry in usable if not view.in_document(entry) and not _is_new(entry)]
    if gone and not force:
        _refuse_odd(view, usable, len(gone))
    return Housekeeping(
        moved=tuple(entry.kid for entry in gone),
        kept=tuple(entry.kid for entry in usable if entry not in gone),
        finished=tuple(entry.kid for entry in going),
        faulty=tuple((entry.kid, entry.fault) for entry in entries if entry.fault and entry not in going),
    )


def next_created_at(entries: Iterable[Entry], now: float) -> int:
    """Return the creation time of the next key, in unix seconds.

    That is ``now``, except after a clock was set back: a key must not look older than the one it follows.
    """
    created_at = int(now)
    newest_at, newest_made_at, _ = max(map(age, entries), default=(0.0, 0.0, ""))
    return int(newest_at) + 1 if (created_at, now) < (newest_at, newest_made_at) else created_at


# --- what a plan consists of


def _repair(view: View) -> Iterator[Step]:
    """Complete files that a kill left half written or half removed."""
    for entry in view.entries.values():
        if entry.key is not None and entry.public_missing:
            yield WritePublic(key=entry.key)
        elif entry.is_leftover:
            yield Clear(entry=entry, how="delete")


def _compare(view: View) -> Iterator[Step]:
    """Compare each key with the document."""
    if view.seen is None:
        return
    revoked = view.revoked & view.entries.keys()
    if _signs(view, revoked):
        yield from _successor(view, leaving=revoked)
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
            yield from _absent(view, entry, entry.record)
        elif phase is not Phase.UNPUBLISHED and entry.kid in revoked:
            event = "key was revoked elsewhere: it stops signing and moves to removed/"
            yield _remove(view, entry, entry.record, event, "set aside", warn=True)


def _confirm(view: View, entry: Entry) -> Step:
    """Confirm a key that was read back from the document."""
    assert view.seen is not None  # noqa: S101 -- in_document was true
    record = entry.record or KeyRecord.new(entry.thumbprint, "adopted", now=view.now)
    signs_from = view.now + _wait_s(view, record)
    waiting = {other.kid for other in view.usable if other.record and view.phase(other) is Phase.PENDING}
    alone = view.document is not None and all(key.kid in waiting for key in view.document.keys)
    if entry.kid in view.seen.fresh or alone:
        signs_from = view.now
    elif entry.record is None and not view.prior and entry.key:
        # Taken over from a program that signed with it from its first second on.
        signs_from = min(view.now, entry.key.created_at)
    record = record.published(view.place, now=view.now, signs_from=signs_from)
    in_document = (other for other in view.usable if view.in_document(other))
    if (
        record.phase is Phase.PUBLISHED
        and signs_from <= view.now
        and view.signing is None
        # Of those that could begin in the same moment, the newest does.
        and entry is max(in_document, key=age)
    ):
        # In one write: no process may see the key that signed before without one that signs now.
        record = record.active(now=view.now, expiry_s=view.settings.expiry_s)
    return WriteRecord(kid=entry.kid, record=record, event="key is published")


def _wait_s(view: View, record: KeyRecord) -> float:
    """Return how long a published key waits: until every cache has it, and the next one until its turn."""
    settings, signing = view.settings, view.signing
    wait_s = settings.activate_after_s
    if record.origin == "next" and settings.rotate_every_s and signing and signing.record:
        turn_at = signing.record.since + settings.rotate_every_s
        wait_s = max(wait_s, view.remaining_s(signing, turn_at, settings.rotate_every_s))
    return wait_s


def _adopt(view: View, entry: Entry) -> Step:
    """Record a key that was found in the folder and is not in the document."""
    record = KeyRecord.new(entry.thumbprint, "adopted", now=view.now, place=view.place)
    if view.document is not None:
        return _refuse(view, entry, record, _REVOKED)
    return WriteRecord(
        kid=entry.kid, record=record, event="key was found in the folder: it will be published"
    )


def _absent(view: View, entry: Entry, record: KeyRecord) -> Iterator[Step]:
    """Refuse or give up a pending key that is not going to be in the document."""
    taken = view.document is not None and view.document.has_kid(entry.kid)
    if record.origin == "adopted" or record.published_at:
        # Perhaps it signed elsewhere: such a key is never deleted.
        if taken:
            yield _refuse(view, entry, record, "another key of that kid is in the JWKS: this one never signs")
        elif record.origin == "adopted" and record.place == OWN_PLACE != view.place and view.document:
            # A process without a bucket took it over, and could not know.
            yield _refuse(view, entry, record, _REVOKED)
    elif taken:
        yield _remove(view, entry, record, "another server was first with this kid: the key is given up")
    elif (
        record.origin == "asked"
        and entry.kid != view.asked
        # Not sooner: a write that was under way when its process was killed may still land.
        and view.remaining_s(entry, record.since + UNSETTLED_S, UNSETTLED_S, at_least_s=TWO_LOOKS_S) <= 0
    ):
        event = "key was asked for and never published: it is given up"
        yield _remove(view, entry, record, event, warn=True)


def _choose(view: View) -> Iterator[Step]:
    """Choose which key signs and which stop, and do what the clocks ask for."""
    settings, signing = view.settings, view.signing
    due = [entry for entry in view.usable if view.phase(entry) is Phase.PUBLISHED and view.wait_s(entry) <= 0]
    if due and (signing is None or age(due[-1]) > age(signing)):
        yield _sign(view, due[-1], "key signs")
        return
    if signing is None or signing.record is None:
        if view.prior or any(_has_signed(view, entry) for entry in view.entries.values()):
            yield from _successor(view)
        return
    if signing.record.expiry_s < settings.expiry_s:
        longer = signing.record.with_expiry(settings.expiry_s)
        yield WriteRecord(kid=signing.kid, record=longer, event="expiry is longer")
        return
    for entry in view.usable:
        record, phase = entry.record, view.phase(entry)
        if record is None or entry is signing:
            continue
        if phase is Phase.ACTIVE or entry in due:
            # A key taken over from another program may have signed without a record of it.
            record = record.with_expiry(settings.expiry_s)
            record = record.retiring(now=view.now, max_age_s=settings.max_age_s)
            yield WriteRecord(kid=entry.kid, record=record, event="key no longer signs")
        elif phase is Phase.RETIRING and settings.rotate_every_s and _has_ended(view, entry, record):
            yield _remove(view, entry, record, "key's last token has expired: it is removed")


def _has_signed(view: View, entry: Entry) -> bool:
    """Tell whether a key has signed and is on its way out."""
    return bool(
        entry.record and entry.record.expiry_s and view.phase(entry) in (Phase.RETIRING, Phase.REMOVING)
    )


def _has_ended(view: View, entry: Entry, record: KeyRecord) -> bool:
    """Tell whether a retiring key's last token has expired."""
    full_s = record.ends_at - record.since
    return view.remaining_s(entry, record.ends_at, full_s, at_least_s=TWO_LOOKS_S) <= 0


def _signs(view: View, kids: Collection[str]) -> bool:
    return view.signing is not None and view.signing.kid in kids


def _successor(view: View, leaving: Collection[str] = ()) -> Iterator[Step]:
    """Let the newest published key sign at once, its wait over or not, before another one stops."""
    published = [
        entry
        for entry in view.usable
        if view.phase(entry) in CONFIRMED
        and entry.kid not in leaving
        and entry.kid not in view.revoked
        and (view.seen is None or view.in_document(entry))
    ]
    if published:
        entry = published[-1]
        waits = view.phase(entry) is Phase.PUBLISHED
        event = "the signing key is gone: this one signs at once"
        event += ", though some caches may not have it yet" if waits else ""
        yield _sign(view, entry, event, warn=waits)


def _clear(view: View) -> Iterator[Step]:
    """Clear keys on their way out that the document no longer holds."""
    for entry in view.entries.values():
        if view.seen and entry.record and entry.is_removing and not view.in_document(entry):
            yield Clear(entry=entry, how=entry.record.removal)


def _keep(view: View) -> Iterator[Step]:
    """Keep the document if it is not the one that the folder has."""
    if view.document is not None and view.place != OWN_PLACE and view.document != view.kept:
        yield Keep(document=view.document)


def _publish(view: View) -> Iterator[Step]:
    """Publish what the document lacks or says wrongly, and take out what is to go."""
    if view.seen is None:
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
            # Confirmed keys come back only into a document that is gone.
            if document is None:
                put.append(key)
                event = "the JWKS was gone: this server's keys are put back"
        elif record.origin != "asked" or entry.kid == view.asked or record.published_at:
            put.append(key)
    going = [entry for entry in view.entries.values() if entry.is_removing and view.in_document(entry)]
    drop = [(entry.kid, entry.thumbprint) for entry in going]
    if view.unwanted and document and document.has_kid(view.unwanted):
        drop.append((view.unwanted, ""))
    if put or amend or drop:
        yield Publish(put=tuple(put), amend=tuple(amend), drop=tuple(drop), event=event)


def _make(view: View) -> Iterator[Step]:
    """Make the first key, or the next one in a rotation."""
    hopeful = [entry for entry in view.usable if view.phase(entry) not in (Phase.REMOVING, Phase.UNPUBLISHED)]
    if not hopeful and view.first_wanted:
        yield Make(origin="first")
    signing, rotate_s = view.signing, view.settings.rotate_every_s
    if not rotate_s or signing is None or signing.record is None:
        return
    lead_s = view.settings.activate_after_s + _ROTATION_LEAD_S
    waiting = any(age(entry) > age(signing) for entry in hopeful)
    if not waiting and view.remaining_s(signing, signing.record.since + rotate_s, rotate_s) <= lead_s:
        yield Make(origin="next")


# --- records


def _sign(view: View, entry: Entry, event: str, *, warn: bool = False) -> Step:
    assert entry.record is not None  # noqa: S101 -- published keys have one
    record = entry.record.active(now=view.now, expiry_s=view.settings.expiry_s)
    return WriteRecord(kid=entry.kid, record=record, event=event, warn=warn)


def _refuse(view: View, entry: Entry, record: KeyRecord, event: str) -> Step:
    record = record.unpublished(view.place, now=view.now)
    return WriteRecord(kid=entry.kid, record=record, event=event, warn=True)


def _remove(
    view: View, entry: Entry, record: KeyRecord, event: str, how: Removal = "delete", *, warn: bool = False
) -> Step:
    return WriteRecord(kid=entry.kid, record=record.removing(how, now=view.now), event=event, warn=warn)


# --- housekeeping


def _is_new(entry: Entry) -> bool:
    """Tell whether the key was made here and never published: it is on its way in, not out."""
    record = entry.record
    return record is not None and record.origin != "adopted" and not record.published_at


def _refuse_odd(view: View, usable: Collection[Entry], gone: int) -> None:
    """Refuse to move keys because of a document that looks wrong."""
    if view.document is None:
        why = "is missing"
    elif not view.document.keys:
        why = "is empty"
    elif not any(view.in_document(entry) for entry in usable):
        why = "holds none of this folder's keys"
    else:
        return
    raise KeyStateError(
        f"the published JWKS {why}: nothing was moved; --force would move {gone} of {len(usable)} keys"
    )
