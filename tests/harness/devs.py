"""``tailbone dev`` in a process of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.tailnet import Way

if TYPE_CHECKING:
    from harness.programs import Program


class Dev:
    """A running ``tailbone dev -o json``.

    Attributes:
        program: its process.
        facts: its JSON line.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.facts: dict[str, Any] = json.loads(program.wait_for('{"tailnet"'))

    def caller(self, identity: str = "dev@example.com") -> Way:
        """The way of one of its callers, addressed as users do."""
        address = self.facts["callers"][identity].removeprefix("http://")
        return Way(address, address)

    @property
    def jwks(self) -> Way:
        """Where the JWKS is."""
        address = self.facts["jwks_url"].removeprefix("http://").partition("/")[0]
        return Way(address, address)
