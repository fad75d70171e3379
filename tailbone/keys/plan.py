"""What has to be done next for the keys of a folder: pure, from the folder, the document and the time.

Every step follows from what is on disk and in the document alone, so that whoever comes after a kill does
what the killed process would have done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.keys.facts import age, signing_entry
from tailbone.keys.record import OWN_PLACE, SKEW_S, UNSETTLED_S, KeyState, Phase
from tailbone.keys.steps import Clear, Make, Publish, Step, WritePublic, WriteState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tailbone.keys.facts import Facts
    from tailbone.keys.folder import Entry
    from tailbone.keys.settings import KeySettings
    from tailbone.keys.signing_key import SigningKey

_ROTATION_LEAD_S: Final = 60.0
_REVOKED: Final = "key was found in the folder and is not in the JWKS: it was revoked, so it never signs"


def plan(facts: Facts) -> list[Step]:
    """The next steps, in order; after them look again, until there are none.

    Publishing comes last and alone: whatever is to stop signing has stopped by then.
    """
    if facts.follows:
        return []
    usable = [entry for entry in facts.entries.values() if entry.key is not None and not entry.fault]
    usable.sort(key=age)
    local: list[Step] = [*_mend(facts), *_settle(facts, usable)]
    if local:
        return local
    local = [*_choose(facts, usable)]
    if local:
        return local
    if facts.read:
        local = [*_clear(facts)]
    local += _make(facts, usable)
    if local or not facts.read:
        return local
    return [*_publish(facts, usable)]


def plan_tidying(facts: Facts) -> list[Step]:
    """As ``plan``, but only what is half done: whoever tidies up may have other settings than the server.

    No key is confirmed, chosen, retired or made.
    """
    local: list[Step] = [*_mend(facts), *_clear(facts)]
    if local or facts.document is None:
        return local
    put = [
        entry.key
        for entry in facts.entries.values()
        if entry.key is not None
        and entry.state is not None
        and entry.state.origin in ("first", "next")
        and not entry.state.place
        and facts.phase(entry) is Phase.PENDING
        and not facts.document.has_kid(entry.kid)
    ]
    drop = _dropped(facts)
    return [Publish(put=tuple(put), drop=drop)] if put or drop else []


def _mend(facts: Facts) -> Iterator[Step]:
    """Files that a kill left half written or half removed."""
    for entry in facts.entries.values():
        if entry.key is not None and entry.public_missing:
            yield WritePublic(key=entry.key)
        elif entry.is_leftover:
            yield Clear(entry=entry, how="delete")


def _settle(facts: Facts, usable: list[Entry]) -> Iterator[Step]:
    """What the document says about each key."""
    if not facts.read:
        return
    for entry in usable:
        phase = facts.phase(entry)
        if phase is Phase.REMOVED:
            continue
        if facts.in_document(entry):
            if phase in (Phase.PENDING, Phase.UNPUBLISHED):
                yield _confirm(facts, entry, usable)
        elif entry.state is None:
            yield _adopt(facts, entry)
        elif phase is Phase.PENDING:
            yield from _unpublished(facts, entry, entry.state)
        elif phase is not Phase.UNPUBLISHED and entry.kid in facts.revoked:
            yield from succession(facts, entry.kid)
            yield WriteState(
                kid=entry.kid,
                state=msgspec.structs.replace(entry.state, removing="set aside"),
                event="key was revoked elsewhere: it stops signing and moves to removed/",
                warn=True,
            )


def _confirm(facts: Facts, entry: Entry, usable: list[Entry]) -> Step:
    """The key was read back from the document."""
    assert facts.document is not None  # noqa: S101 -- in_document was true
    assert entry.key is not None  # noqa: S101 -- usable entries have one
    state = entry.state or _adopted(facts, entry.key)
    signs_from = _waits_until(facts, state, facts.now + facts.settings.activate_after_s)
    waiting = {other.kid for other in usable if facts.phase(other) is Phase.PENDING and other.state}
    alone = all(key.kid in waiting for key in facts.document.keys)
    if entry.kid in facts.unread or (alone and state.origin != "adopted"):
        signs_from = facts.now
    elif entry.state is None and not facts.prior:
        # Taken over from a program that signed with it from its first second on.
        signs_from = min(facts.now, entry.key.created_at)
    state = msgspec.structs.replace(
        state,
        place=facts.place,
        confirmed_at=facts.now,
        signs_from=signs_from,
        signing_since=0.0,
        refused="",
    )
    if signs_from <= facts.now and not any(facts.phase(other) is Phase.ACTIVE for other in usable):
        # In one write: nobody may see the key that signed before without one that signs now.
        state = _signing(facts, state)
    return WriteState(kid=entry.kid, state=state, event="key is published")


def _waits_until(facts: Facts, state: KeyState, caches_know_at: float) -> float:
    """When a published key may sign: once every cache knows it, and the next one when it is its turn."""
    signing = signing_entry(facts)
    rotate_s = facts.settings.rotate_every_s
    if state.origin != "next" or not rotate_s or signing is None or signing.state is None:
        return caches_know_at
    return max(caches_know_at, min(signing.state.signing_since, facts.now) + rotate_s)


def _signing(facts: Facts, state: KeyState) -> KeyState:
    """The state of a key that signs from now on, all of it in one write."""
    return msgspec.structs.replace(
        state,
        signs_from=min(state.signs_from, facts.now),
        signing_since=facts.now,
        expiry_s=max(state.expiry_s, facts.settings.expiry_s),
        ends_at=0.0,
    )


def _adopt(facts: Facts, entry: Entry) -> Step:
    """A key without a state, not in the document."""
    assert entry.key is not None  # noqa: S101 -- usable entries have one
    state = _adopted(facts, entry.key)
    if facts.document is None or facts.own_document:
        return WriteState(
            kid=entry.kid, state=state, event="key was found in the folder: it will be published"
        )
    return WriteState(
        kid=entry.kid,
        state=msgspec.structs.replace(state, refused=facts.place),
        event=_REVOKED,
        warn=True,
    )


def _unpublished(facts: Facts, entry: Entry, state: KeyState) -> Iterator[Step]:
    """A key made here that is not in the document yet."""
    taken = facts.document is not None and facts.document.has_kid(entry.kid)
    if state.origin == "adopted" or state.place:
        # Perhaps it signed elsewhere: such a key is never deleted.
        refused = msgspec.structs.replace(state, refused=facts.place)
        if taken:
            event = "another key of that kid is in the JWKS: this one never signs"
            yield WriteState(kid=entry.kid, state=refused, event=event, warn=True)
        elif state.origin == "adopted" and state.place == OWN_PLACE and facts.document is not None:
            # A process without a bucket took it over, and could not know.
            yield WriteState(kid=entry.kid, state=refused, event=_REVOKED, warn=True)
    elif taken:
        yield WriteState(
            kid=entry.kid,
            state=msgspec.structs.replace(state, removing="delete"),
            event="another server was first with this kid: the key is given up",
        )
    elif (
        state.origin == "asked"
        and entry.kid != facts.asked
        # Not sooner: a write that was under way when its process was killed may still land.
        and abs(facts.now - state.since) >= UNSETTLED_S
    ):
        yield WriteState(
            kid=entry.kid,
            state=msgspec.structs.replace(state, removing="delete"),
            event="key was asked for and never published: it is given up",
            warn=True,
        )


def _choose(facts: Facts, usable: list[Entry]) -> Iterator[Step]:
    """Which key signs, which stop, and what the clock asks for."""
    settings = facts.settings
    phases = {entry.kid: facts.phase(entry) for entry in usable}
    overdue = [*_overdue(facts, usable)]
    if overdue:
        yield from overdue
        return
    active = [entry for entry in usable if phases[entry.kid] is Phase.ACTIVE]
    if not active:
        yield from _promote(facts, usable, phases)
        return
    *others, signing = active
    assert signing.state is not None  # noqa: S101 -- active keys have one
    if signing.state.expiry_s < settings.expiry_s or not signing.state.signing_since:
        state = msgspec.structs.replace(
            signing.state,
            expiry_s=max(signing.state.expiry_s, settings.expiry_s),
            signing_since=signing.state.signing_since or facts.now,
        )
        yield WriteState(
            kid=signing.kid,
            state=state,
            event="key signs" if not signing.state.signing_since else "expiry is longer",
        )
        return
    for entry in others:
        yield _retire(facts, entry)
    for entry in usable:
        retiring = entry.state if phases[entry.kid] is Phase.RETIRING else None
        if retiring and settings.rotate_every_s and _has_ended(facts, entry.kid, retiring):
            state = msgspec.structs.replace(retiring, removing="delete")
            yield WriteState(kid=entry.kid, state=state, event="key's last token has expired: it is removed")


def _overdue(facts: Facts, usable: list[Entry]) -> Iterator[Step]:
    """What the clock would keep waiting after it was set back.

    A wait ends when it was long enough by a clock that is never set. On disk nothing is cut: the time may be
    right again in a moment, as on a machine that starts with a wrong one.
    """
    settings = facts.settings
    for entry in usable:
        state, phase = entry.state, facts.phase(entry)
        if state is None:
            continue
        if phase is Phase.PUBLISHED:
            wait_s = settings.activate_after_s
            if state.origin == "next":
                wait_s = max(wait_s, settings.rotate_every_s)
            if facts.observed_s.get(entry.kid, 0.0) >= wait_s:
                state = msgspec.structs.replace(state, signs_from=facts.now)
                yield WriteState(kid=entry.kid, state=state, event="key has waited long enough")
        elif phase is Phase.ACTIVE and state.signing_since > facts.now + 1:
            state = msgspec.structs.replace(state, signing_since=facts.now)
            yield WriteState(kid=entry.kid, state=state, event="the clock was set back: key signs since now")


def _retire(facts: Facts, entry: Entry) -> Step:
    assert entry.state is not None  # noqa: S101 -- active keys have one
    longest_s = max(entry.state.expiry_s, facts.settings.expiry_s)
    state = retired(msgspec.structs.replace(entry.state, expiry_s=longest_s), facts.now, facts.settings)
    return WriteState(kid=entry.kid, state=state, event="key no longer signs")


def retired(state: KeyState, now: float, settings: KeySettings) -> KeyState:
    """The state of a key that has signed until now: it stays published until its last token has expired."""
    return msgspec.structs.replace(state, ends_at=now + _lasts_s(state, settings))


def _lasts_s(state: KeyState, settings: KeySettings) -> float:
    return state.expiry_s + settings.max_age_s + SKEW_S


def _has_ended(facts: Facts, kid: str, state: KeyState) -> bool:
    """Whether a key's last token has expired; if the clock was set back, that it has been long enough."""
    seen_s = facts.observed_s.get(kid, 0.0)
    return state.ends_at <= facts.now or seen_s >= _lasts_s(state, facts.settings)


def _promote(facts: Facts, usable: list[Entry], phases: dict[str, Phase]) -> Iterator[Step]:
    """No key signs: if one did before, another one takes over."""
    signed_before = (
        facts.prior
        or any(phase is Phase.RETIRING for phase in phases.values())
        or any(
            entry.state and entry.state.removing and entry.state.signing_since
            for entry in facts.entries.values()
        )
    )
    if signed_before:
        yield from _successor(facts, usable)


def succession(facts: Facts, kid: str) -> Iterator[WriteState]:
    """What has to be written before a key stops signing, for no moment to be without one that signs."""
    signing = signing_entry(facts)
    if signing is not None and signing.kid == kid:
        others = [entry for entry in facts.entries.values() if entry.key is not None and entry.kid != kid]
        yield from _successor(facts, sorted(others, key=age))


def _successor(facts: Facts, usable: list[Entry]) -> Iterator[WriteState]:
    """The newest published key signs at once, its wait over or not."""
    published = [
        entry
        for entry in usable
        if facts.phase(entry) in (Phase.PUBLISHED, Phase.RETIRING, Phase.ACTIVE)
        and entry.kid not in facts.revoked
        and (not facts.read or facts.in_document(entry))
    ]
    if published:
        entry = published[-1]
        assert entry.state is not None  # noqa: S101 -- published keys have one
        waits = facts.phase(entry) is Phase.PUBLISHED
        yield WriteState(
            kid=entry.kid,
            state=_signing(facts, entry.state),
            event="the signing key is gone: this one signs at once"
            + (", though some caches may not have it yet" if waits else ""),
            warn=waits,
        )


def _clear(facts: Facts) -> Iterator[Step]:
    """Keys on their way out that the document no longer holds."""
    for entry in facts.entries.values():
        if entry.state and entry.state.removing and not facts.in_document(entry):
            yield Clear(entry=entry, how=entry.state.removing)


def _make(facts: Facts, usable: list[Entry]) -> list[Step]:
    """The first key, or the next one in a rotation."""
    hopeful = [
        entry
        for entry in usable
        if facts.phase(entry) in (Phase.PENDING, Phase.PUBLISHED, Phase.ACTIVE, Phase.RETIRING)
    ]
    if not hopeful:
        return [Make(origin="first")] if facts.first_wanted else []
    signing = signing_entry(facts)
    settings = facts.settings
    if not settings.rotate_every_s or signing is None or signing.state is None:
        return []
    waiting = any(age(entry) > age(signing) for entry in hopeful)
    due_at = (
        signing.state.signing_since + settings.rotate_every_s - settings.activate_after_s - _ROTATION_LEAD_S
    )
    return [Make(origin="next")] if not waiting and facts.now >= due_at else []


def _publish(facts: Facts, usable: list[Entry]) -> Iterator[Step]:
    """What the document lacks, says wrongly, or holds too much."""
    put: list[SigningKey] = []
    amend: list[SigningKey] = []
    for entry in usable:
        assert entry.key is not None  # noqa: S101 -- usable entries have one
        phase = facts.phase(entry)
        if phase in (Phase.REMOVED, Phase.UNPUBLISHED) or entry.state is None:
            continue
        if facts.in_document(entry):
            members = entry.key.public_jwk()
            if facts.document and facts.document.lacks_members(entry.kid, entry.key.thumbprint, members):
                amend.append(entry.key)
        elif phase is not Phase.PENDING:
            # Confirmed keys come back only into a document that is gone.
            if facts.document is None or facts.own_document:
                put.append(entry.key)
        elif entry.state.origin != "asked" or entry.kid == facts.asked or entry.state.place:
            put.append(entry.key)
    drop = _dropped(facts)
    if put or amend or drop:
        yield Publish(put=tuple(put), amend=tuple(amend), drop=drop)


def _dropped(facts: Facts) -> tuple[tuple[str, str], ...]:
    """Kid and thumbprint of keys on their way out that the document still holds."""
    return tuple(
        (entry.kid, entry.thumbprint)
        for entry in facts.entries.values()
        if entry.state and entry.state.removing and facts.in_document(entry)
    )


def _adopted(facts: Facts, key: SigningKey) -> KeyState:
    return KeyState(thumbprint=key.thumbprint, origin="adopted", since=facts.now)
