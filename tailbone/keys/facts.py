"""Facts: all that a plan depends on, and what follows from it at a glance; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tailbone.jwks.document import Document  # noqa: TC001 -- msgspec resolves it
from tailbone.keys.folder import Entry  # noqa: TC001 -- msgspec resolves it
from tailbone.keys.record import Phase
from tailbone.keys.settings import KeySettings  # noqa: TC001 -- msgspec resolves it
from tailbone.keys.signing_key import created_at_of

if TYPE_CHECKING:
    from collections.abc import Iterable


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that a plan depends on.

    Attributes:
        now: unix seconds.
        place: which document is meant; a confirmation for another one does not count.
        settings: as they are in force.
        entries: the folder.
        read: whether ``document`` is a good read; without one only what needs none is planned.
        document: the published document; None when there is certainly none.
        own_document: the document is made of the folder's keys, nobody else has a say in it.
        revoked: own confirmed keys that two good reads did not show.
        unread: keys published into a document that held none: nobody's cache can lack them.
        asked: the key that is being generated at this moment.
        prior: the kid that signs now.
        first_wanted: a first key is to be made if no key can ever sign.
        observed_s: for how many seconds this process has seen each key in its phase, on a clock that is never
            set.
        follows: this process has no store and the folder has records of one, so that it changes nothing.
    """

    now: float
    place: str
    settings: KeySettings
    entries: dict[str, Entry]
    read: bool = False
    document: Document | None = None
    own_document: bool = False
    revoked: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()
    asked: str = ""
    prior: str = ""
    first_wanted: bool = False
    observed_s: dict[str, float] = {}
    follows: bool = False

    def phase(self, entry: Entry) -> Phase:
        """The entry's phase; one without a state is pending until the document has been read."""
        return entry.state.phase(self.place, self.now) if entry.state else Phase.PENDING

    def in_document(self, entry: Entry) -> bool:
        """Whether this very key stands in the document."""
        return self.document is not None and self.document.has(entry.kid, entry.thumbprint)


def age(entry: Entry) -> tuple[float, float, str]:
    """Sorts keys, the oldest first."""
    created_at = entry.key.created_at if entry.key else created_at_of(entry.kid) or 0
    return (created_at, entry.state.since if entry.state else 0.0, entry.kid)


def next_created_at(entries: Iterable[Entry], now: float) -> int:
    """When the next key is said to be made, in unix seconds.

    That is ``now``, but for a clock that was set back: a key must not look older than the one it follows.
    """
    created_at = int(now)
    newest_at, newest_since, _ = max(map(age, entries), default=(0.0, 0.0, ""))
    return int(newest_at) + 1 if (created_at, now) < (newest_at, newest_since) else created_at


def signing_entry(facts: Facts) -> Entry | None:
    """The entry that signs: the newest of the active keys that have begun to."""
    active = [
        entry
        for entry in facts.entries.values()
        if entry.key is not None
        and entry.state is not None
        and entry.state.signing_since
        and facts.phase(entry) is Phase.ACTIVE
    ]
    return max(active, key=age, default=None)
