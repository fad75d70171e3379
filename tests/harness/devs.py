"""``tailbone dev`` in its own process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.tailnet import Route

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

    def caller(self, identity: str = "dev@example.com") -> Route:
        """Return the port of one of its callers, with the Host that users send."""
        address = self.facts["callers"][identity].removeprefix("http://")
        return Route(address, address)

    @property
    def jwks(self) -> Route:
        """The port of the JWKS."""
        address = self.facts["jwks_url"].removeprefix("http://").partition("/")[0]
        return Route(address, address)
