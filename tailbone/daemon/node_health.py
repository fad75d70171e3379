"""NodeHealth: warns when the node's key is about to expire, and when the control server is away."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from tailbone.errors import Problem
from tailbone.text import about

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.process.log import Logger
    from tailbone.tsnet.node import NodeStatus

_DAY_S = 86400.0
_EXPIRY_STEPS_S = (14 * _DAY_S, 7 * _DAY_S, _DAY_S, 3600.0, 0.0)
"""How long before the expiry of the node's key there is a warning; from the first one on, also a note."""

_WAY_OUT = (
    "disable its key expiry in the admin console, or restart the server with a valid auth key once it has "
    "expired"
)
_EXPIRED = Problem(
    "node_key_expired",
    "node: its key has expired: restart the server with a valid auth key, or with identity federation",
)

_UNREACHABLE_S = 120.0
"""How long the control server may be away before there is a warning and a note."""

_DELETED = Problem("node_deleted", "node: the control server has deleted it")
_UNREACHABLE = Problem("control_unreachable", "node: the control server does not answer")


class NodeHealth:
    """What goes wrong with a node that has joined, as lines in the log and as notes."""

    def __init__(
        self,
        log: Logger,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch nothing yet.

        Args:
            log: receives the warnings.
            clock: Unix seconds.
            monotonic: seconds, for how long the control server is away.
        """
        self._log = log
        self._clock = clock
        self._monotonic = monotonic
        self._expiry_step = 0
        self._key_expiry: float | None = None
        self._away_since: float | None = None
        self._control_note: Problem | None = None

    @property
    def key_expiry(self) -> float | None:
        """When the node must log in again, in Unix seconds; None for never, and before the join."""
        return self._key_expiry

    @property
    def notes(self) -> list[Problem]:
        """The current problems, which do not stop token issuance."""
        notes = []
        if self._expiry_step and self._key_expiry is not None:
            left_s = self._key_expiry - self._clock()
            soon = f"node: its key expires in {about(left_s)}: {_WAY_OUT}"
            notes.append(Problem("node_key_expires", soon) if left_s > 0 else _EXPIRED)
        if self._control_note is not None:
            notes.append(self._control_note)
        return notes

    def check(self, status: NodeStatus) -> None:
        """Warn once of each problem that begins, and log when the control server answers again."""
        self._check_expiry(status)
        self._check_control(status)

    def note_deletion(self) -> None:
        """Warn once that the control server has deleted the node; the event comes with each poll."""
        if self._control_note != _DELETED:
            self._control_note = _DELETED
            self._log.warning(
                "the control server has deleted this node: no caller is served until it joins again, "
                "at a restart with a valid auth key"
            )

    def _check_expiry(self, status: NodeStatus) -> None:
        self._key_expiry = status.key_expiry
        left_s = math.inf if status.key_expiry is None else status.key_expiry - self._clock()
        before, self._expiry_step = self._expiry_step, sum(left_s < step_s for step_s in _EXPIRY_STEPS_S)
        if self._expiry_step <= before:
            return
        if left_s < 0:
            self._log.warning(
                "the node's key has expired, so no caller is served: restart the server with a valid auth "
                "key, or with identity federation",
                node=status.dns_name,
            )
        else:
            self._log.warning(
                f"the node's key expires soon, which cuts it off: {_WAY_OUT}",
                node=status.dns_name,
                expires_in_h=round(left_s / 3600, 1),
            )

    def _check_control(self, status: NodeStatus) -> None:
        if status.control_reachable:
            if self._control_note:
                self._log.info("the control server answers again")
            self._away_since, self._control_note = None, None
            return
        now = self._monotonic()
        self._away_since = now if self._away_since is None else self._away_since
        if now - self._away_since >= _UNREACHABLE_S and not self._control_note:
            self._control_note = _UNREACHABLE
            self._log.warning(
                "the control server does not answer: changes of the tailnet are not seen until it does",
                since_s=round(now - self._away_since),
            )
