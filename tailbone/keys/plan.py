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
    from collections.abc import Collection, Iterable, Iterator

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


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    """Change the document.

    Attributes:
        put: keys to put in.
        amend: keys whose entries say too little; one that is gone by now is not put back.
        drop: kid and thumbprint of those to take out; without a thumbprint every key of that kid.
    """

    put: tuple[SigningKey, ...] = ()
    amend: tuple[SigningKey, ...] = ()
    drop: tuple[tuple[str, str], ...] = ()

    def edit(self, document: Document | None) -> Document | None:
        """The document as it should be; a key whose kid another server has taken since stays out.

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
    """Make a key and write its pair."""

    origin: Origin


Step = WriteRecord | WritePublic | Clear | Publish | Make


# --- plans


def plan(view: View) -> list[Step]:
    """The next steps, in order; after them look again, until there are none.

    Publishing comes last and alone: whatever is to stop signing has stopped by then.
    """
    if view.follows:
        return []
    first: list[Step] = [*_repair(view), *_compare(view)]
    if first:
        return first
    local: list[Step] = [*_choose(view)]
    if local:
        return local
    if view.read:
        local += _clear(view)
    local += _make(view)
    if local or not view.read:
        return local
    return [*_publish(view)]


def plan_tidying(view: View) -> list[Step]:
    """As ``plan``, but only what is half done: housekeeping may have other settings than the server.

    No key is confirmed, chosen, retired or made.
    """
    local: list[Step] = [*_repair(view), *_clear(view)]
    if local or view.document is None:
        return local
    put = [
        entry.key
        for entry in view.usable
        if entry.key is not None
        and entry.record is not None
        and entry.record.origin in ("first", "next")
        and not entry.record.published_at
        and view.phase(entry) is Phase.PENDING
        and not view.document.has_kid(entry.kid)
    ]
    drop = _dropped(view)
    return [Publish(put=tuple(put), drop=drop)] if put or drop else []


def plan_removal(view: View, kids: Collection[str], removal: Removal) -> list[Step]:
    """Write that keys are on their way out; if one of them signs, another key signs first.

    Where the folder no longer knows which key it was, the document says it.
    """
    steps: list[Step] = []
    signing = view.signing
    if signing is not None and signing.kid in kids:
        steps += _successor(view, leaving=kids)
    for kid in kids:
        entry = view.entries[kid]
        record = entry.record
        if record is None:
            keys = view.document.keys if view.document else ()
            published = next((key.thumbprint for key in keys if key.kid == kid), "")
            record = KeyRecord.new(entry.thumbprint or published, "adopted", now=view.now)
        steps.append(
            WriteRecord(kid=kid, record=record.removing(removal, now=view.now), event="key is being removed")
        )
    return steps


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
    going = [entry for entry in entries if _is_removing(entry)]
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
    """The creation time of the next key, in unix seconds.

    That is ``now``, except after a clock was set back: a key must not look older than the one it follows.
    """
    created_at = int(now)
    newest_at, newest_made_at, _ = max(map(age, entries), default=(0.0, 0.0, ""))
    return int(newest_at) + 1 if (created_at, now) < (newest_at, newest_made_at) else created_at


# --- what a plan consists of


def _repair(view: View) -> Iterator[Step]:
    """Files that a kill left half written or half removed."""
    for entry in view.entries.values():
        if entry.key is not None and entry.public_missing:
            yield WritePublic(key=entry.key)
        elif entry.is_leftover:
            yield Clear(entry=entry, how="delete")


def _compare(view: View) -> Iterator[Step]:
    """What the document says about each key."""
    if not view.read:
        return
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
        elif phase is not Phase.UNPUBLISHED and entry.kid in view.revoked:
            if view.signing is entry:
                yield from _successor(view, leaving={entry.kid})
            yield WriteRecord(
                kid=entry.kid,
                record=entry.record.removing("set aside", now=view.now),
                event="key was revoked elsewhere: it stops signing and moves to removed/",
                warn=True,
            )


def _confirm(view: View, entry: Entry) -> Step:
    """The key was read back from the document."""
    assert view.document is not None  # noqa: S101 -- in_document was true
    assert entry.key is not None  # noqa: S101 -- usable entries have one
    record = entry.record or KeyRecord.new(entry.key.thumbprint, "adopted", now=view.now)
    signs_from = view.now + _wait_s(view, record)
    waiting = {other.kid for other in view.usable if other.record and view.phase(other) is Phase.PENDING}
    alone = all(key.kid in waiting for key in view.document.keys)
    if entry.kid in view.unread or (alone and record.origin != "adopted"):
        signs_from = view.now
    elif entry.record is None and not view.prior:
        # Taken over from a program that signed with it from its first second on.
        signs_from = min(view.now, entry.key.created_at)
    record = record.published(view.place, now=view.now, signs_from=signs_from)
    if record.phase is Phase.PUBLISHED and signs_from <= view.now and _signs_at_once(view, entry):
        # In one write: no process may see the key that signed before without one that signs now.
        record = record.active(now=view.now, expiry_s=view.settings.expiry_s)
    return WriteRecord(kid=entry.kid, record=record, event="key is published")


def _signs_at_once(view: View, entry: Entry) -> bool:
    """Whether no key signs, and this one is the newest of those that could begin in the same moment."""
    if view.signing is not None:
        return False
    return entry is max((other for other in view.usable if view.in_document(other)), key=age)


def _wait_s(view: View, record: KeyRecord) -> float:
    """How long a published key waits: until every cache has it, and the next one until it is its turn."""
    settings, signing = view.settings, view.signing
    wait_s = settings.activate_after_s
    if record.origin == "next" and settings.rotate_every_s and signing and signing.record:
        turn_at = signing.record.since + settings.rotate_every_s
        wait_s = max(wait_s, view.remaining_s(signing, turn_at, settings.rotate_every_s))
    return wait_s


def _adopt(view: View, entry: Entry) -> Step:
    """A key without a record, not in the document."""
    record = KeyRecord.new(entry.thumbprint, "adopted", now=view.now, place=view.place)
    if view.document is None or view.own_document:
        event = "key was found in the folder: it will be published"
        return WriteRecord(kid=entry.kid, record=record, event=event)
    refused = record.unpublished(view.place, now=view.now)
    return WriteRecord(kid=entry.kid, record=refused, event=_REVOKED, warn=True)


def _absent(view: View, entry: Entry, record: KeyRecord) -> Iterator[Step]:
    """A pending key that is not in the document."""
    taken = view.document is not None and view.document.has_kid(entry.kid)
    if record.origin == "adopted" or record.published_at:
        # Perhaps it signed elsewhere: such a key is never deleted.
        refused = record.unpublished(view.place, now=view.now)
        if taken:
            event = "another key of that kid is in the JWKS: this one never signs"
            yield WriteRecord(kid=entry.kid, record=refused, event=event, warn=True)
        elif record.origin == "adopted" and record.place == OWN_PLACE != view.place and view.document:
            # A process without a bucket took it over, and could not know.
            yield WriteRecord(kid=entry.kid, record=refused, event=_REVOKED, warn=True)
    elif taken:
        yield WriteRecord(
            kid=entry.kid,
            record=record.removing("delete", now=view.now),
            event="another server was first with this kid: the key is given up",
        )
    elif (
        record.origin == "asked"
        and entry.kid != view.asked
        # Not sooner: a write that was under way when its process was killed may still land.
        and view.remaining_s(entry, record.since + UNSETTLED_S, UNSETTLED_S, at_least_s=TWO_LOOKS_S) <= 0
    ):
        yield WriteRecord(
            kid=entry.kid,
            record=record.removing("delete", now=view.now),
            event="key was asked for and never published: it is given up",
            warn=True,
        )


def _choose(view: View) -> Iterator[Step]:
    """Which key signs, which stop, and what the clocks ask for."""
    settings = view.settings
    phases = {entry.kid: view.phase(entry) for entry in view.usable}
    signing = view.signing
    due = [entry for entry in view.usable if phases[entry.kid] is Phase.PUBLISHED and view.wait_s(entry) <= 0]
    if due and (signing is None or age(due[-1]) > age(signing)):
        yield _sign(view, due[-1], "key signs")
        return
    if signing is None or signing.record is None:
        yield from _promote(view)
        return
    if signing.record.expiry_s < settings.expiry_s:
        longer = signing.record.with_expiry(settings.expiry_s)
        yield WriteRecord(kid=signing.kid, record=longer, event="expiry is longer")
        return
    for entry in view.usable:
        record = entry.record
        if record is None or entry is signing:
            continue
        if phases[entry.kid] is Phase.ACTIVE or entry in due:
            # A key taken over from another program may have signed without a record of it.
            record = record.with_expiry(settings.expiry_s)
            record = record.retiring(now=view.now, max_age_s=settings.max_age_s)
            yield WriteRecord(kid=entry.kid, record=record, event="key no longer signs")
        elif phases[entry.kid] is Phase.RETIRING and settings.rotate_every_s and _has_ended(view, entry):
            yield WriteRecord(
                kid=entry.kid,
                record=record.removing("delete", now=view.now),
                event="key's last token has expired: it is removed",
            )


def _sign(view: View, entry: Entry, event: str, *, warn: bool = False) -> WriteRecord:
    assert entry.record is not None  # noqa: S101 -- published keys have one
    record = entry.record.active(now=view.now, expiry_s=view.settings.expiry_s)
    return WriteRecord(kid=entry.kid, record=record, event=event, warn=warn)


def _has_ended(view: View, entry: Entry) -> bool:
    """Whether a retiring key's last token has expired."""
    record = entry.record
    return (
        record is not None
        and view.remaining_s(entry, record.ends_at, record.ends_at - record.since, at_least_s=TWO_LOOKS_S)
        <= 0
    )


def _promote(view: View) -> Iterator[WriteRecord]:
    """No key signs: if one did before, another one takes over."""
    if view.prior or any(
        entry.record and entry.record.expiry_s and view.phase(entry) in (Phase.RETIRING, Phase.REMOVING)
        for entry in view.entries.values()
    ):
        yield from _successor(view, leaving=())


def _successor(view: View, *, leaving: Collection[str]) -> Iterator[WriteRecord]:
    """The newest published key signs at once, its wait over or not; before another one stops."""
    published = [
        entry
        for entry in view.usable
        if view.phase(entry) in CONFIRMED
        and entry.kid not in leaving
        and entry.kid not in view.revoked
        and (not view.read or view.in_document(entry))
    ]
    if published:
        entry = published[-1]
        waits = view.phase(entry) is Phase.PUBLISHED
        event = "the signing key is gone: this one signs at once"
        event += ", though some caches may not have it yet" if waits else ""
        yield _sign(view, entry, event, warn=waits)


def _is_removing(entry: Entry) -> bool:
    return entry.record is not None and entry.record.phase is Phase.REMOVING


def _clear(view: View) -> Iterator[Step]:
    """Keys on their way out that the document no longer holds."""
    for entry in view.entries.values():
        if entry.record and _is_removing(entry) and not view.in_document(entry):
            yield Clear(entry=entry, how=entry.record.removal)


def _make(view: View) -> Iterator[Step]:
    """The first key, or the next one in a rotation."""
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


def _publish(view: View) -> Iterator[Step]:
    """What the document lacks, says wrongly, or holds too much."""
    put: list[SigningKey] = []
    amend: list[SigningKey] = []
    for entry in view.usable:
        assert entry.key is not None  # noqa: S101 -- usable entries have one
        phase = view.phase(entry)
        if phase in (Phase.REMOVING, Phase.UNPUBLISHED) or entry.record is None:
            continue
        if view.in_document(entry):
            members = entry.key.public_jwk()
            if view.document and view.document.lacks_members(entry.kid, entry.key.thumbprint, members):
                amend.append(entry.key)
        elif phase is not Phase.PENDING:
            # Confirmed keys come back only into a document that is gone.
            if view.document is None or view.own_document:
                put.append(entry.key)
        elif entry.record.origin != "asked" or entry.kid == view.asked or entry.record.published_at:
            put.append(entry.key)
    drop = _dropped(view)
    if put or amend or drop:
        yield Publish(put=tuple(put), amend=tuple(amend), drop=drop)


def _dropped(view: View) -> tuple[tuple[str, str], ...]:
    """Kid and thumbprint of keys on their way out that the document still holds."""
    return tuple(
        (entry.kid, entry.thumbprint)
        for entry in view.entries.values()
        if _is_removing(entry) and view.in_document(entry)
    )


def _is_new(entry: Entry) -> bool:
    """Whether the key was made here and never published: it is on its way in, not out."""
    record = entry.record
    return record is not None and record.origin != "adopted" and not record.published_at


def _refuse_odd(view: View, usable: Collection[Entry], gone: int) -> None:
    """A document that looks wrong must not cost the folder its keys."""
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
