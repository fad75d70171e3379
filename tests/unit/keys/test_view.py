"""View: the waits of a key by two clocks, the key ring, what is missing, and why no key signs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from harness.keys import EC, START
from harness.problems import texts

from tailbone.errors import NoSigningKeyError
from tailbone.jwks.document import Document
from tailbone.keys.folder import Entry, Snapshot
from tailbone.keys.record import OWN_LOCATION, KeyRecord, Origin
from tailbone.keys.signing_key import SigningKey
from tailbone.keys.view import KeyRing, View, Watch, own_document, published_in, watch

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = "s3://bucket/jwks.json"
THERE = "s3://other/jwks.json"
DAY_S = 86_400.0
KEYS = [
    SigningKey.generate(f"k{number}", algorithm="ES256", size=0, created_at=int(START) + number)
    for number in range(3)
]


def pending(number: int) -> Entry:
    key = KEYS[number]
    record = KeyRecord.new(key.thumbprint, Origin.REQUESTED, now=START, location=HERE)
    return Entry(kid=key.kid, files=(), key=key, record=record)


def published(number: int, *, signs_from: float = START + 300, location: str = HERE) -> Entry:
    return changed(pending(number), "published", location, now=START, signs_from=signs_from)


def active(number: int) -> Entry:
    return changed(published(number, signs_from=START), "active", now=START, expiry_s=1200.0)


def changed(entry: Entry, transition: str, *args: Any, **how: Any) -> Entry:
    """Return the entry after a transition of its record."""
    record = getattr(entry.record, transition)(*args, **how)
    return Entry(kid=entry.kid, files=(), key=entry.key, record=record)


def view(*entries: Entry, passed: float = 0.0, now: float = START, watched_at: float = START) -> View:
    """Return a view ``passed`` seconds after the process first saw the keys, at ``watched_at``."""
    snapshot = Snapshot(entries={entry.kid: entry for entry in entries})
    return View(
        now=now,
        monotonic=1000.0 + passed,
        location=HERE,
        settings=EC,
        entries=snapshot.entries,
        watched=watch({}, snapshot, HERE, now=watched_at, monotonic=1000.0),
    )


# --- remaining_s


@pytest.mark.parametrize(
    ("now", "passed", "remaining_s"),
    [
        pytest.param(START, 0.0, 300.0, id="at the start"),
        pytest.param(START + 100, 100.0, 200.0, id="on the way"),
        pytest.param(START + 300, 300.0, 0.0, id="at the end"),
        pytest.param(START + 310, 310.0, -10.0, id="after the end"),
        pytest.param(START + DAY_S, 10.0, 290.0, id="wall clock set forward: the monotonic clock waits"),
        pytest.param(START - DAY_S, 10.0, 290.0, id="wall clock set back: no longer than the full length"),
        pytest.param(START - DAY_S, 300.0, 0.0, id="wall clock set back, at the end"),
        pytest.param(START + 250, 300.0, 0.0, id="wall clock slow: the full length has passed"),
        pytest.param(START + 300, 290.0, 10.0, id="wall clock fast"),
    ],
)
def test_remaining_s_in_one_process(now: float, passed: float, remaining_s: float) -> None:
    """The clocks must agree that the wait has ended; by the monotonic clock it takes at most its length."""
    entry = published(0)
    found = view(entry, now=now, passed=passed).remaining_s(entry, START + 300, 300.0)
    assert found == pytest.approx(remaining_s)


@pytest.mark.parametrize(
    ("started_at", "remaining_s"),
    [
        pytest.param(START + 200, 100.0, id="part of the wait has passed"),
        pytest.param(START + DAY_S, 0.0, id="all of it has passed"),
        pytest.param(START - DAY_S, 300.0, id="wall clock set back meanwhile: the full length again"),
    ],
)
def test_remaining_s_after_a_restart(started_at: float, remaining_s: float) -> None:
    """Only the wall clock measures the time before the process started."""
    entry = published(0)
    found = view(entry, now=started_at, watched_at=started_at).remaining_s(entry, START + 300, 300.0)
    assert found == pytest.approx(remaining_s)


def test_remaining_s_after_a_restart_and_a_clock_set_back() -> None:
    """The wait that is left when the process starts grows with the clock set back, up to the full length."""
    entry = published(0)
    seen = view(entry, watched_at=START + 200, now=START + 150, passed=60.0)
    assert seen.remaining_s(entry, START + 300, 300.0) == pytest.approx(150.0)
    seen = view(entry, watched_at=START + 200, now=START - DAY_S, passed=60.0)
    assert seen.remaining_s(entry, START + 300, 300.0) == pytest.approx(240.0)


@pytest.mark.parametrize("full_s", [300.0, 30.0])
@pytest.mark.parametrize(("passed", "remaining_s"), [(0.0, 60.0), (50.0, 10.0), (60.0, 0.0)])
def test_remaining_s_is_at_least_what_this_process_waits(
    full_s: float, passed: float, remaining_s: float
) -> None:
    """Although the recorded end has passed, this process waits ``at_least_s`` by its monotonic clock."""
    entry, later = published(0), START + DAY_S
    seen = view(entry, now=later + passed, watched_at=later, passed=passed)
    assert seen.remaining_s(entry, START + full_s, full_s, at_least_s=60.0) == pytest.approx(remaining_s)


def test_a_published_key_waits_until_it_signs() -> None:
    """Its wait is the recorded one, from ``since`` to ``signs_from``."""
    entry = published(0)
    assert view(entry, now=START + 40, passed=40.0).wait_s(entry) == pytest.approx(260.0)


def test_a_watch_begins_with_each_phase() -> None:
    """While the phase lasts, the first watch of it stays."""
    first = watch({}, Snapshot(entries={"k0": published(0)}), HERE, now=START, monotonic=5.0)
    same = watch(first, Snapshot(entries={"k0": published(0)}), HERE, now=START + 9, monotonic=14.0)
    other = watch(same, Snapshot(entries={"k0": active(0)}), HERE, now=START + 9, monotonic=14.0)
    assert same == first == {"k0": Watch(same["k0"].phase, START, 5.0)}
    assert (other["k0"].clock, other["k0"].monotonic) == (START + 9, 14.0)


# --- what follows from the folder


def test_the_newest_active_key_signs() -> None:
    """The ring also has all keys whose public half was read back, newest first."""
    ring = view(active(0), active(1), pending(2)).ring()
    assert ring == KeyRing(signing=KEYS[1], expiry_s=1200.0, published=(KEYS[1], KEYS[0]))


def test_a_key_of_another_location_does_not_sign() -> None:
    """Verifiers of this document do not know it."""
    ring = view(changed(published(0, location=THERE), "active", now=START, expiry_s=1200.0)).ring()
    assert ring == KeyRing()
    with pytest.raises(NoSigningKeyError):
        ring.require()


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([active(0), pending(1)], []),
        ([pending(0)], ["keys: k0 is not published yet"]),
        ([published(0)], ["keys: k0 is published and signs in 300 s"]),
        ([Entry(kid="k0", files=(), fault="it is empty")], ["keys: k0 cannot be used: it is empty"]),
    ],
)
def test_why_no_key_signs(entries: Sequence[Entry], why: list[str]) -> None:
    """There is a reason for each key; none if a key signs."""
    assert texts(view(*entries).obstacles()) == why


def test_an_empty_folder_is_a_reason() -> None:
    """The reason names the command that makes a key."""
    (why,) = texts(view().obstacles())
    assert "tailbone keys generate" in why


@pytest.mark.parametrize(
    ("document", "started", "missing"),
    [
        (None, 1000.0, []),
        (Document({"keys": [KEYS[0].public_jwk()]}), 1000.0, []),
        (Document({"keys": []}), 1000.0, ["k0"]),
        # A read that began before the key was confirmed.
        (Document({"keys": []}), 999.0, []),
    ],
)
def test_a_confirmed_key_that_a_read_does_not_show(
    document: Document | None, started: float, missing: list[str]
) -> None:
    """It is missing, unless there is no document or the read is older than the confirmation."""
    assert view(active(0), pending(1)).missing(document, started) == missing


@pytest.mark.parametrize(
    ("entries", "location"),
    [
        ([], OWN_LOCATION),
        ([published(0, location=OWN_LOCATION)], OWN_LOCATION),
        ([published(0, location=OWN_LOCATION), published(1)], HERE),
        ([pending(0), published(1, location=THERE)], THERE),
    ],
)
def test_where_the_folders_keys_are_published(entries: Sequence[Entry], location: str) -> None:
    """A location where a key is confirmed counts more than one where a key is pending."""
    assert published_in(Snapshot(entries={entry.kid: entry for entry in entries})) == location


def test_the_folders_own_document() -> None:
    """Without a bucket a pending key is in it at once; with one, only confirmed keys are."""
    snapshot = Snapshot(entries={"k0": active(0), "k1": pending(1)})
    assert [key.kid for key in own_document(snapshot, HERE).keys] == ["k0"]
    own = Snapshot(entries={"k1": pending(1)})
    assert [key.kid for key in own_document(own, OWN_LOCATION).keys] == ["k1"]
