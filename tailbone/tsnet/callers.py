"""Callers: who is behind each bridged connection, read from the table that the bridge writes.

The bridge asks the node's own state for every piece that arrives from the tailnet, and writes a new answer
into the connection's slot before it hands the piece on (tsnet_go/internal/callers). So an answer is never
older than the request, and reading it is no call into Go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from tailbone.token.identity import Identity

if TYPE_CHECKING:
    from tailbone.tsnet.peername import Slot

_GENERATION_SHIFT: Final = 32


class CallerTable(Protocol):
    """What is read of the table; ``Library`` has it."""

    def caller_version(self, slot: int) -> int: ...

    def caller_answer(self, slot: int, version: int) -> bytes | None: ...


class Callers:
    """The identities that the table shows, each decoded once a version.

    A version of a slot never comes back, so an identity holds for as long as the slot shows its version.
    """

    def __init__(self, table: CallerTable) -> None:
        self._table = table
        self._decoded: dict[int, tuple[int, Identity]] = {}

    def identity(self, slot: Slot) -> Identity | None:
        """Who is behind the connection with this slot.

        Returns:
            None where whois has to be asked: the slot belongs to another connection by now, it is being
            written, its caller is unknown, or the answer is too long for it.

        Raises:
            UnknownCallerError: the caller's node could not be the subject of a token.
        """
        version = self._table.caller_version(slot.number)
        if version >> _GENERATION_SHIFT != slot.generation:
            return None
        decoded = self._decoded.get(slot.number)
        if decoded is not None and decoded[0] == version:
            return decoded[1]
        answer = self._table.caller_answer(slot.number, version)
        if not answer:
            return None
        identity = Identity.decode(answer)
        self._decoded[slot.number] = version, identity
        return identity
