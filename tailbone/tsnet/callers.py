"""The callers of bridged connections, read from the table that the bridge writes.

For each chunk of bytes that arrives from the tailnet, the bridge asks the node's own state who sent it, and
writes a new answer into the connection's slot before it passes the chunk on (tsnet_go/internal/callers). So
an answer is never older than the request, and reading it needs no call into Go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from tailbone.token.identity import Identity

if TYPE_CHECKING:
    from tailbone.tsnet.peername import Slot

_GENERATION_SHIFT: Final = 32


class CallerTable(Protocol):
    """The read access to the table that ``Library`` provides."""

    def caller_version(self, slot: int) -> int: ...

    def caller_answer(self, slot: int, version: int) -> bytes | None: ...


class Callers:
    """The identities in the table, each decoded once per version.

    Versions of a slot are never reused, so an identity is valid while its slot has that version.
    """

    def __init__(self, table: CallerTable) -> None:
        self._table = table
        self._decoded: dict[int, tuple[int, Identity]] = {}

    def identity(self, slot: Slot) -> Identity | None:
        """Return the caller of the connection with this slot.

        Returns:
            None if the caller must use whois instead: the slot now belongs to another connection, is being
            written, has an unknown caller, or the answer is too long for it.

        Raises:
            UnknownCallerError: the caller's node has neither a user nor tags.
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
