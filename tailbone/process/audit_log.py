"""AuditLog: lines that must be written before something happens, and whether they can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tailbone.errors import LogUnavailableError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tailbone.process.log import Logger


class AuditLog:
    """Writes the line of each token.

    Attributes:
        log: where; it raises OSError if a line cannot be written (``get_logger(strict=True)``).
        trail: gets the lines of refused tokens, failed calls and changes of keys; None if the log is enough.
        last: returns that many last lines of the audit file, the newest first; None without a file.
    """

    def __init__(
        self,
        log: Logger,
        trail: Logger | None = None,
        last: Callable[[int], Sequence[str]] | None = None,
    ) -> None:
        """Write to ``log``; ``trail`` and ``last`` are for others."""
        self.log = log
        self.trail = trail
        self.last = last
        self._fails = False

    def write(self, event: str, **fields: Any) -> None:
        """Log an event that must not be lost.

        Raises:
            LogUnavailableError: it cannot be written.
        """
        self._fails = True
        try:
            self.log.info(event, **fields)
        except OSError as error:
            raise LogUnavailableError(
                "the server cannot log the token; /_readyz says when it can", detail=str(error)
            ) from error
        self._fails = False

    def reasons(self) -> Sequence[Problem]:
        """Return a problem if the last line could not be written.

        In that case, write a test line to find out whether the log works again.
        """
        if self._fails:
            try:
                self.write("the lines of tokens can be written again")
            except LogUnavailableError:
                return (Problem("log_unavailable", "log: the line of a token cannot be written"),)
        return ()
