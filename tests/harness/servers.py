"""A server on the private tailnet, in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from harness.programs import Program


class Server:
    """``tailbone server start`` with a JSON log.

    Attributes:
        program: its process.
        name: the short name that it asked for.
        folder: its keys are in ``keys`` below it, its node's state in ``node``.
        authkey: what it joined with.
    """

    def __init__(self, program: Program, name: str, folder: Path, authkey: str) -> None:
        self.program = program
        self.name = name
        self.folder = folder
        self.authkey = authkey

    def wait_until_serving(self) -> dict[str, Any]:
        """Wait for the line that says that it listens, and give it."""
        self.program.wait_for('"event":"started"')
        record = self.program.event("started")
        assert record is not None
        return record

    @property
    def addresses(self) -> list[str]:
        """Its tailnet addresses, once it serves."""
        record = self.program.event("started")
        assert record is not None
        return list(record["addresses"])

    def events(self, text: str) -> list[dict[str, Any]]:
        """All log records with that event."""
        return [record for record in self.program.records() if record["event"] == text]
