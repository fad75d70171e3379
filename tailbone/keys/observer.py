"""Observer: reads the folder, the document and the clocks, and returns views of them. It changes nothing."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from tailbone.errors import KeyFileError
from tailbone.keys.folder import Snapshot
from tailbone.keys.record import OWN_LOCATION
from tailbone.keys.view import (
    REVOCATION_CONFIRM_S,
    KeyRing,
    Read,
    View,
    Watch,
    own_document,
    published_in,
    watch,
)
from tailbone.process.cancellation import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.jwks.document import Document
    from tailbone.jwks.publisher import Publisher
    from tailbone.keys.folder import KeyFolder
    from tailbone.keys.settings import KeySettings
    from tailbone.process.log import Logger


class Observer:
    """What this process has seen of its keys.

    Attributes:
        snapshot: the folder when it was last read.
        ring: the key ring that follows from it; replaced as a whole.
        last_good: the document of the last successful read; None before the first.
        read_at: when that read began, on the monotonic clock.
        saved_copy: the copy of the document in the folder.
    """

    def __init__(
        self,
        *,
        folder: KeyFolder,
        publisher: Publisher | None,
        settings: KeySettings,
        log: Logger,
        changes: Logger,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """Create an observer that has read nothing yet.

        Args:
            folder: the key folder.
            publisher: reads and changes the document; None if nothing is published.
            settings: the current settings.
            log: receives warnings.
            changes: receives a line for each change of a key.
            clock: returns Unix time in seconds.
            monotonic: returns seconds of a monotonic clock.
        """
        self.folder = folder
        self.publisher = publisher
        self.settings = settings
        self.log = log
        self.changes = changes
        self.clock = clock
        self.monotonic = monotonic
        self.snapshot = Snapshot()
        self.ring = KeyRing()
        self.last_good: Document | None = None
        self.read_at = -math.inf
        self.saved_copy: Document | None = None
        self._watched: dict[str, Watch] = {}
        # Own confirmed keys that successful reads did not show: when the first and the last of these began.
        self._missing: dict[str, tuple[float, float]] = {}
        # Until a key is published. A removal of the last key stops service; it does not generate another one.
        self._needs_first_key = True
        self._scanning = asyncio.Lock()
        self._warned: set[str] = set()

    @property
    def location(self) -> str:
        """Where the document is published, by this process or, if it has no store, by another one."""
        return self.publisher.location if self.publisher else published_in(self.snapshot)

    @property
    def read_only(self) -> bool:
        """Whether this process may not change the folder, whose records name a store that it lacks."""
        return self.publisher is None and self.location != OWN_LOCATION

    @property
    def misses_keys(self) -> bool:
        """Whether the last successful read did not show a key that should be there."""
        return bool(self._missing)

    def view(self, last_read: Read | None = None) -> View:
        """Return the current view.

        Args:
            last_read: a read of the document to compare the keys with; None if there is none.
        """
        now, monotonic, location = self.clock(), self.monotonic(), self.location
        self._watched = watch(self._watched, self.snapshot, location, now=now, monotonic=monotonic)
        return View(
            now=now,
            monotonic=monotonic,
            location=location,
            settings=self.settings,
            entries=self.snapshot.entries,
            watched=self._watched,
            last_read=last_read if self.publisher else Read(own_document(self.snapshot, location)),
            saved_copy=self.saved_copy,
            revoked=self._revoked,
            had_signer=self.ring.signing is not None,
            needs_first_key=self._needs_first_key,
        )

    def refresh_ring(self) -> None:
        """Replace the ring with the one that follows from the folder."""
        before, self.ring = self.ring, self.view().ring()
        kid, old = (ring.signing.kid if ring.signing else "" for ring in (self.ring, before))
        if kid != old:
            say = self.changes.info if kid else self.changes.warning
            say("signing key changed", kid=kid, before=old)
        if {key.kid for key in self.ring.published} - self._revoked:
            self._needs_first_key = False

    async def rescan(self) -> None:
        """Read the folder again.

        Raises:
            KeyFileError: the folder cannot be used. The snapshot stays as it is.
        """
        async with self._scanning:
            self.snapshot = snapshot = await in_thread(self.folder.scan)
        if snapshot.warning:
            self._warn_once(snapshot.warning)
        for entry in snapshot.entries.values():
            if entry.fault and not (entry.is_leftover or entry.is_removing):
                self._warn_once("key cannot be used", kid=entry.kid, why=entry.fault)
            elif entry.warning:
                self._warn_once(entry.warning, kid=entry.kid)

    async def read(self, *, until: float | None = None) -> Read:
        """Read the document.

        Args:
            until: when to stop retrying transient failures, on the monotonic clock; None tries once.

        Raises:
            StoreError: the document could not be read.
        """
        if self.publisher is None:
            return Read(own_document(self.snapshot, self.location))
        started = self.monotonic()
        last_read = Read(await self.publisher.read(until=until))
        self.record_read(last_read.document, started)
        return last_read

    def record_read(self, document: Document | None, started: float) -> None:
        """Record a successful read, and own confirmed keys that it does not show.

        Args:
            document: None if there certainly is none.
            started: when the read began, on the monotonic clock.
        """
        if started < self.read_at:
            # A later read has finished earlier.
            return
        self.read_at = started
        missing = self.view().missing(document, started)
        self._missing = {kid: (self._missing.get(kid, (started,))[0], started) for kid in missing}
        if self._revoked:
            # If no other key can sign, a new one replaces the revoked key.
            self._needs_first_key = True
        if document is not None and document != self.last_good:
            self.last_good = document
            for warning in document.warnings():
                self._warn_once(warning)

    async def load_saved_copy(self) -> None:
        """Load the copy of the document that an earlier run has saved."""
        if self.publisher is None:
            return
        try:
            self.saved_copy = await in_thread(self.folder.read_saved_copy, self.location)
        except KeyFileError as error:
            self.log.warning("the saved copy of the JWKS is ignored", why=error.message)
        self.last_good = self.saved_copy

    @property
    def _revoked(self) -> frozenset[str]:
        return frozenset(
            kid for kid, (first, last) in self._missing.items() if last - first >= REVOCATION_CONFIRM_S
        )

    def _warn_once(self, event: str, **facts: object) -> None:
        """Log a lasting problem once."""
        warning = f"{event} {facts}"
        if warning not in self._warned:
            self._warned.add(warning)
            self.log.warning(event, **facts)
