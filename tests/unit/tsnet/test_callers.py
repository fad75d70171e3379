"""The table of callers, as Python reads it; the native library is not loaded."""

from __future__ import annotations

import pytest

from tailbone.errors import UnknownCallerError
from tailbone.tsnet.callers import Callers
from tailbone.tsnet.peername import Slot


class Table:
    """A table whose slots have increasing generations, as the bridge writes them."""

    def __init__(self) -> None:
        self.slots: dict[int, tuple[int, bytes]] = {}
        self.reads = 0

    def acquire(self, number: int) -> Slot:
        generation = (self.slots.get(number, (0, b""))[0] >> 32) + 1
        self.slots[number] = (generation << 32) + 2, b""
        return Slot(number, generation)

    def write(self, slot: Slot, node: str, user_id: int = 7) -> None:
        answer = f'{{"node_id":"n1","node":"{node}","user_id":{user_id}}}'.encode()
        self.slots[slot.number] = self.slots[slot.number][0] + 2, answer

    def caller_version(self, slot: int) -> int:
        return self.slots[slot][0]

    def caller_answer(self, slot: int, version: int) -> bytes | None:
        self.reads += 1
        now, answer = self.slots[slot]
        return answer if now == version else None


@pytest.fixture
def table() -> Table:
    return Table()


def node_of(callers: Callers, slot: Slot) -> str | None:
    identity = callers.identity(slot)
    return None if identity is None else identity.node


def test_an_answer_is_decoded_once(table: Table) -> None:
    """While the version is unchanged, the slot is not read again."""
    callers, slot = Callers(table), table.acquire(0)
    table.write(slot, "a")
    assert [node_of(callers, slot) for _ in range(3)] == ["a", "a", "a"]
    assert table.reads == 1


def test_a_new_answer_counts_at_once(table: Table) -> None:
    """The identity that was decoded before is not returned again."""
    callers, slot = Callers(table), table.acquire(0)
    table.write(slot, "a")
    assert node_of(callers, slot) == "a"
    table.write(slot, "b")
    assert node_of(callers, slot) == "b"


def test_a_reused_slot_belongs_to_its_new_connection_only(table: Table) -> None:
    """The earlier connection must use whois, whether or not the new answer was decoded already."""
    callers, first = Callers(table), table.acquire(0)
    table.write(first, "first")
    assert node_of(callers, first) == "first"
    second = table.acquire(0)
    assert node_of(callers, first) is None
    assert node_of(callers, second) is None
    table.write(second, "second")
    assert node_of(callers, first) is None
    assert node_of(callers, second) == "second"
    assert node_of(callers, first) is None


def test_an_empty_or_unfinished_slot_has_no_answer(table: Table) -> None:
    """The connection must use whois then."""
    callers, slot = Callers(table), table.acquire(0)
    assert callers.identity(slot) is None
    table.write(slot, "a")
    table.caller_answer = lambda slot, version: None  # type: ignore[method-assign]
    assert callers.identity(slot) is None


def test_a_caller_without_user_and_tags_is_refused_each_time(table: Table) -> None:
    """Its node has an answer but not an identity."""
    callers, slot = Callers(table), table.acquire(0)
    table.write(slot, "a", user_id=0)
    for _ in range(2):
        with pytest.raises(UnknownCallerError):
            callers.identity(slot)
