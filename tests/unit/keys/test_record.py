"""KeyRecord: what is kept about a key, its transitions, and the files of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from tailbone.errors import KeyFileError
from tailbone.keys.record import KeyRecord, Phase

OLD = Path(__file__).parent / "old_states"
NEW = KeyRecord.new("t", "first", now=900.0, location="here")


def test_a_key_passes_through_its_phases() -> None:
    """Each transition says since when; a key that signs again has no end."""
    published = NEW.published("here", now=910.0, signs_from=1210.0)
    active = published.active(now=1210.0, expiry_s=60.0)
    retiring = active.retiring(now=2000.0, max_age_s=300.0)
    again = retiring.active(now=2100.0, expiry_s=50.0)
    removing = again.removing("set aside", now=2200.0)
    lives = [NEW, published, active, retiring, again, removing]
    assert [(record.phase, record.since) for record in lives] == [
        (Phase.PENDING, 900.0),
        (Phase.PUBLISHED, 910.0),
        (Phase.ACTIVE, 1210.0),
        (Phase.RETIRING, 2000.0),
        (Phase.ACTIVE, 2100.0),
        (Phase.REMOVING, 2200.0),
    ]
    assert {record.made_at for record in lives} == {900.0}
    assert retiring.ends_at == 2000.0 + 60.0 + 300.0 + 300.0
    assert (again.ends_at, again.expiry_s) == (0.0, 60.0)
    assert removing.removal == "set aside"


def test_in_another_place_a_key_is_pending() -> None:
    """A confirmation for another document says nothing about this one; a removal holds everywhere."""
    active = NEW.published("here", now=910.0, signs_from=910.0).active(now=910.0, expiry_s=60.0)
    assert active.phase_at("here") is Phase.ACTIVE
    assert active.phase_at("elsewhere") is Phase.PENDING
    assert NEW.unpublished("here", now=1.0).phase_at("elsewhere") is Phase.PENDING
    assert active.removing("delete", now=1.0).phase_at("elsewhere") is Phase.REMOVING


def test_a_key_that_was_retired_elsewhere_stays_retired() -> None:
    """It is published in the new location until its last token has expired."""
    active = NEW.published("here", now=910.0, signs_from=910.0).active(now=910.0, expiry_s=60.0)
    retiring = active.retiring(now=950.0, max_age_s=300.0)
    moved = retiring.published("elsewhere", now=1000.0, signs_from=1300.0)
    assert (moved.phase, moved.ends_at) == (Phase.RETIRING, retiring.ends_at)


def test_what_is_written_is_read() -> None:
    """Every member; the phase can be read by people as well."""
    record = NEW.published("here", now=1.5, signs_from=2.5).active(now=2.5, expiry_s=60.0)
    record = record.retiring(now=9.5, max_age_s=300.0).removing("set aside", now=10.5)
    assert KeyRecord.from_json(record.to_json()) == record
    written = json.loads(record.to_json())
    assert (written["phase"], written["place"]) == ("removing", "here")


OLD_RECORDS = {
    "pending": {"phase": Phase.PENDING, "location": "s3://b/jwks.json", "since": 900.0},
    "adopted": {"phase": Phase.PENDING, "location": "", "origin": "adopted"},
    "published": {"phase": Phase.PUBLISHED, "since": 910.0, "signs_from": 1210.0, "published_at": 910.0},
    "active": {"phase": Phase.ACTIVE, "since": 1210.5, "expiry_s": 1200.0, "ends_at": 0.0},
    "retiring": {"phase": Phase.RETIRING, "ends_at": 5000.0, "expiry_s": 1200.0},
    "unpublished": {"phase": Phase.UNPUBLISHED, "location": "s3://b/jwks.json"},
    "removing": {"phase": Phase.REMOVING, "removal": "set aside", "location": "s3://b/jwks.json"},
}


@pytest.mark.parametrize("name", OLD_RECORDS)
def test_files_of_the_form_without_a_phase_are_read(name: str) -> None:
    """The phase is the one that followed from their members; written again, they have the new form."""
    record = KeyRecord.from_json((OLD / f"{name}.state.json").read_bytes())
    members = msgspec.structs.asdict(record)
    assert {member: members[member] for member in OLD_RECORDS[name]} == OLD_RECORDS[name]
    assert (record.thumbprint, record.made_at) == ("t", 900.0)
    assert KeyRecord.from_json(record.to_json()) == record
    assert json.loads(record.to_json())["phase"] == record.phase.value


def test_every_old_file_has_a_test() -> None:
    """One for each phase."""
    assert {path.name.removesuffix(".state.json") for path in OLD.iterdir()} == set(OLD_RECORDS)


def test_a_member_of_a_later_version_is_not_a_fault() -> None:
    """A folder goes on working when its server is replaced by an older one."""
    assert KeyRecord.from_json(NEW.to_json().replace(b"{", b'{"later": 1,', 1)) == NEW


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"null", NEW.to_json()[:-9], b'{"thumbprint": 1}', b"\xff", b'{"later": ' + b"[" * 100_000],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_not_a_record_is_an_error(data: bytes) -> None:
    """And not a record with other values."""
    with pytest.raises(KeyFileError):
        KeyRecord.from_json(data)
