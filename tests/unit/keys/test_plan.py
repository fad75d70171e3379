"""Plan: histories of changes, kills, revocations and clocks by property."""

from __future__ import annotations

from pathlib import Path

import msgspec
from harness.keys import START
from harness.settings import key_settings
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tailbone.jwks.document import Document
from tailbone.keys.folder import Entry, Snapshot
from tailbone.keys.plan import (
    Publish,
    RemoveFiles,
    SaveCopy,
    Step,
    WritePublic,
    WriteRecord,
    key_due,
    next_created_at,
    plan,
    plan_giving_up,
    plan_removal,
)
from tailbone.keys.record import CONFIRMED, KeyRecord, Origin, Phase, Removal
from tailbone.keys.signing_key import SigningKey
from tailbone.keys.view import Read, View, Watch, watch

LOCATION = "s3://bucket/jwks.json"
KEYS = [
    SigningKey.generate("key", algorithm="ES256", size=0, created_at=START + number) for number in range(60)
]
kills = st.none() | st.integers(0, 6)


def test_a_full_document_makes_room_before_it_takes_a_key() -> None:
    """One out and one in, with as many keys as there may be."""
    members = {"kty": "RSA", "n": "AQ", "e": "AQAB"}
    full = Document({"keys": [{**members, "kid": f"k{number}"} for number in range(100)]})
    key = SigningKey.generate("new", algorithm="ES256", size=0, created_at=int(START))
    edited = Publish(put=(key,), drop=(("k7", ""),)).edit(full)
    assert edited is not None
    assert len(edited.keys) == 100
    assert (edited.has_kid("new"), edited.has_kid("k7")) == (True, False)


class Killed(Exception):  # noqa: N818 -- it is not an error
    """The process has ended here."""


class Life(RuleBasedStateMachine):
    """One server's folder and the document, without a disk: steps are carried out, or cut off by a kill."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        # Seconds that have really passed; and until when a key's last token is good.
        self.passed = 0.0
        self.good_until: dict[str, float] = {}
        self.asked_to_go: set[str] = set()
        self.entries: dict[str, Entry] = {}
        self.document: Document | None = None
        self.settings = key_settings(algorithm="ES256")
        self.spare = list(KEYS)
        self.left = 1_000_000
        self.moved: set[str] = set()
        # Taken from the document by somebody else, and not noticed yet.
        self.taken: set[str] = set()
        self.restart()

    def restart(self) -> None:
        """A new process knows nothing but what is on disk."""
        self.had_signer = False
        self.needs_first_key = True
        self.fresh: frozenset[str] = frozenset()
        self.saved_copy: Document | None = None
        self.absent: dict[str, tuple[float, float]] = {}
        self.watched: dict[str, Watch] = {}

    # --- carrying out

    def view(self, *, read: bool) -> View:
        self.watched = watch(
            self.watched, Snapshot(entries=self.entries), LOCATION, now=self.now, monotonic=self.passed
        )
        return View(
            now=self.now,
            monotonic=self.passed,
            watched=self.watched,
            location=LOCATION,
            settings=self.settings,
            entries=self.entries,
            last_read=Read(self.document, self.fresh) if read else None,
            saved_copy=self.saved_copy,
            revoked=self.revoked,
            had_signer=self.had_signer,
            needs_first_key=self.needs_first_key,
        )

    @property
    def revoked(self) -> frozenset[str]:
        return frozenset(kid for kid, (first, last) in self.absent.items() if last - first >= 30)

    @property
    def signing(self) -> Entry | None:
        return self.view(read=False).signing

    def step(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def put(self, kid: str, key: SigningKey, record: KeyRecord, *, public: bool = True) -> None:
        halves = ["private.jwk", *(["public.jwk"] if public else []), "state.json"]
        self.entries[kid] = Entry(
            kid=kid,
            files=tuple(Path(f"{kid}.{half}") for half in halves),
            key=key,
            record=record,
            public_missing=not public,
        )

    def make(self, origin: Origin) -> str:
        key = self.spare.pop(0)
        created_at = next_created_at(self.entries.values(), self.now)
        kid = f"tb-{created_at}-{len(KEYS) - len(self.spare):04x}"
        key = SigningKey(kid=kid, private=key._private, created_at=created_at)
        record = KeyRecord.new(key.thumbprint, origin, now=self.now, location=LOCATION)
        self.step()
        self.put(kid, key, record, public=False)
        self.step()
        self.put(kid, key, record)
        return kid

    def do(self, step: Step) -> None:
        self.step()
        match step:
            case WriteRecord():
                self.entries[step.kid] = msgspec.structs.replace(self.entries[step.kid], record=step.record)
            case WritePublic():
                self.entries[step.key.kid] = msgspec.structs.replace(
                    self.entries[step.key.kid], public_missing=False
                )
            case RemoveFiles():
                record = step.entry.record
                pruned = step.how is Removal.DELETE and step.entry.kid not in self.asked_to_go
                if pruned and record and record.expiry_s:
                    assert self.passed >= self.good_until.get(step.entry.kid, 0.0)
                del self.entries[step.entry.kid]
                if step.how is Removal.MOVE:
                    self.moved.add(step.entry.kid)
            case SaveCopy():
                self.saved_copy = step.document
            case Publish():
                self.publish(step)

    def publish(self, step: Publish) -> None:
        before, self.document = self.document, step.edit(self.document)
        had_none = before is None or not before.keys
        self.fresh = frozenset(key.kid for key in step.put) if had_none else frozenset()
        self.step()

    def settle(self, *, read: bool) -> None:
        self.fresh = frozenset()
        if read:
            self.record_read()
        self.run_plan(read=read)
        if origin := key_due(self.view(read=read)):
            self.make(origin)
            self.run_plan(read=read)
        if any(
            entry.record and entry.record.phase_at(LOCATION) in CONFIRMED for entry in self.entries.values()
        ):
            self.needs_first_key = False
        if read:
            self.sound()

    def run_plan(self, *, read: bool) -> None:
        for _ in range(50):
            steps = plan(self.view(read=read))
            if not steps:
                break
            for step in steps:
                self.do(step)
            self.observe_signer()
        else:
            raise AssertionError(f"the plan does not end: {steps}")
        self.observe_signer()

    def record_read(self) -> None:
        missing = self.view(read=False).missing(self.document, self.passed)
        self.absent = {kid: (self.absent.get(kid, (self.passed,))[0], self.passed) for kid in missing}
        if self.revoked:
            self.needs_first_key = True

    def observe_signer(self) -> None:
        signing = self.signing
        self.had_signer = signing is not None
        if signing:
            assert signing.record is not None
            until = self.passed + min(self.settings.expiry_s, signing.record.expiry_s)
            self.good_until[signing.kid] = max(self.good_until.get(signing.kid, 0.0), until)

    def killed(self, kill: int | None, change: object) -> None:
        self.left = 1_000_000 if kill is None else kill
        try:
            change()  # type: ignore[operator]
        except Killed:
            self.restart()
        finally:
            self.left = 1_000_000

    # --- what must hold

    @invariant()
    def nothing_signs_that_is_not_published(self) -> None:
        """Unless somebody else has taken it away just now, or the document is gone."""
        signing = self.signing
        if signing and signing.kid not in self.taken and self.document is not None:
            assert signing.key is not None
            assert self.document.has(signing.kid, signing.key.thumbprint)

    def sound(self) -> None:
        """When all is done that could be done with a good read."""
        phases = {
            kid: entry.record and entry.record.phase_at(LOCATION) for kid, entry in self.entries.items()
        }
        assert Phase.REMOVING not in phases.values()
        assert list(phases.values()).count(Phase.ACTIVE) <= 1
        waits_s = max(self.settings.activate_after_s, self.settings.rotate_every_s)
        for kid, entry in self.entries.items():
            assert not entry.public_missing
            assert entry.record is not None
            if phases[kid] is Phase.PUBLISHED:
                assert self.passed - self.watched[kid].monotonic <= waits_s
            if phases[kid] is Phase.RETIRING and self.settings.rotate_every_s:
                assert self.passed - self.watched[kid].monotonic <= entry.record.expiry_s + 600
            if phases[kid] in CONFIRMED and kid not in self.absent:
                assert self.document is not None
                assert entry.key is not None
                assert self.document.has(kid, entry.key.thumbprint)
        if any(phase is Phase.ACTIVE for phase in phases.values()):
            assert self.signing is not None

    # --- what can happen

    @rule(kill=kills, read=st.booleans())
    def look_after_it(self, kill: int | None, read: bool) -> None:
        self.killed(kill, lambda: self.settle(read=read))

    @rule(seconds=st.sampled_from([1.0, 31.0, 61.0, 301.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.passed += seconds
        # Tokens are asked for all the time.
        self.observe_signer()

    @rule()
    def the_clock_is_set_back(self) -> None:
        self.now -= 1000

    @rule(every=st.sampled_from([0.0, 3600.0]), expiry=st.sampled_from([60.0, 1200.0]))
    def restarted_with_other_settings(self, every: float, expiry: float) -> None:
        self.settings = msgspec.structs.replace(self.settings, rotate_every_s=every, expiry_s=expiry)
        self.restart()

    @precondition(lambda self: self.spare)
    @rule(kill=kills, refused=st.booleans())
    def generate(self, kill: int | None, refused: bool) -> None:
        def change() -> None:
            kid = self.make(Origin.REQUESTED)
            if refused:
                for step in plan_giving_up(self.view(read=False), kid):
                    self.do(step)
                return
            self.settle(read=True)

        self.killed(kill, change)

    @precondition(lambda self: self.entries)
    @rule(kill=kills, data=st.data())
    def remove(self, kill: int | None, data: st.DataObject) -> None:
        kid = data.draw(st.sampled_from(sorted(self.entries)))

        def change() -> None:
            self.asked_to_go.add(kid)
            self.record_read()
            self.needs_first_key = False
            for step in plan_removal(self.view(read=True), kid):
                self.do(step)
            self.observe_signer()
            self.settle(read=True)

        self.killed(kill, change)

    @precondition(lambda self: self.document and self.document.keys)
    @rule(data=st.data())
    def somebody_takes_a_key_away(self, data: st.DataObject) -> None:
        assert self.document is not None
        kid = data.draw(st.sampled_from([key.kid for key in self.document.keys]))
        self.document = self.document.without(kid)
        self.taken.add(kid)

    @rule()
    def the_document_is_gone(self) -> None:
        self.taken |= {key.kid for key in self.document.keys} if self.document else set()
        self.document = None

    @rule(number=st.integers(0, 1000))
    def another_server_publishes(self, number: int) -> None:
        members = {"kty": "RSA", "kid": f"other-{number}", "n": "AQ", "e": "AQAB"}
        document = self.document or Document.empty()
        if not document.has_kid(members["kid"]) and len(document.keys) < 90:
            self.document = document.with_key(members, "")

    @rule()
    def it_comes_to_rest(self) -> None:
        """Left alone, a server that wants a key has one that signs, and nothing waits."""
        self.restart()
        for seconds in (0.0, 1.0, 31.0, 61.0, 301.0, 31.0, 301.0):
            self.pass_time(seconds)
            self.settle(read=True)
        phases = {entry.record.phase_at(LOCATION) for entry in self.entries.values() if entry.record}
        assert Phase.PENDING not in phases
        assert Phase.PUBLISHED not in phases or self.settings.rotate_every_s
        signing = self.signing
        assert signing is not None
        assert signing.key is not None
        assert signing.record is not None
        assert self.document is not None
        assert self.document.has(signing.kid, signing.key.thumbprint)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40)
