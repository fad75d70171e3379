"""VoidRules: warns once of each void rule in the tailnet's policy, and counts those that callers have now."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailbone.process.log import Logger
    from tailbone.token.grants import Void
    from tailbone.token.identity import Identity

_MOST: Final = 1000
"""How many callers are remembered, and how many rules are warned of."""


class VoidRules:
    """The void rules of each caller as of its last request.

    ``note`` is called with every request, so a rule that was corrected no longer counts once its callers have
    made another one.
    """

    def __init__(self, log: Logger) -> None:
        """Warn in ``log``."""
        self._log = log
        self._of_node: dict[tuple[str, str], Sequence[Void]] = {}
        self._warned: set[tuple[str, bytes]] = set()

    @property
    def count(self) -> int:
        """How many different void rules there are."""
        return len({_key(void) for rules in self._of_node.values() for void in rules})

    def note(self, identity: Identity, capability: str, void: Sequence[Void]) -> None:
        """Remember the void rules that a caller has now.

        Args:
            identity: the caller.
            capability: the one that holds the rules.
            void: its void values; empty for none.
        """
        caller = identity.node_id, capability
        if not void:
            if self._of_node:
                self._of_node.pop(caller, None)
            return
        if self._of_node.get(caller) is void:
            return
        if caller not in self._of_node and len(self._of_node) >= _MOST:
            self._of_node.pop(next(iter(self._of_node)))
        self._of_node[caller] = void
        for each in void:
            key = _key(each)
            if key in self._warned or len(self._warned) > _MOST:
                continue
            self._warned.add(key)
            if len(self._warned) > _MOST:
                self._log.warning(
                    f"more than {_MOST} different rules in the tailnet's policy have been void; "
                    "further ones are not logged, but tailbone keys status counts them"
                )
                continue
            self._log.warning(
                "a rule in the tailnet's policy is void and grants nothing",
                capability=each.capability,
                rule=each.shown,
                reason=each.reason,
                node=identity.node,
            )


def _key(void: Void) -> tuple[str, bytes]:
    """Return what is the same for two appearances of one rule."""
    return void.capability, hashlib.sha256(void.source.encode()).digest()
