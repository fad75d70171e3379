"""CallLine: the log line of one call of the admin API, filled as the call goes on and written at its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from tailbone.admin._proto import admin_pb2
from tailbone.errors import LogUnavailableError, TailboneError
from tailbone.text import safe_text
from tailbone.tsnet.peername import address_of

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from tailbone.process.log import Logger
    from tailbone.process.refusal_log import RefusalLog
    from tailbone.token.identity import Identity

_HEALTH: Final = "/grpc.health.v1.Health/"


class CallLine:
    """The log line of one call."""

    def __init__(
        self,
        log: Logger,
        audit: Logger,
        refusals: RefusalLog,
        counts: Counter[str],
        method: str,
        peer: str,
    ) -> None:
        """Begin the line of one call.

        Args:
            log: receives cancelled calls and health checks.
            audit: receives changes that begin, and successful calls; it raises OSError if a line cannot be
                written.
            refusals: receives failed calls.
            counts: counts calls by outcome, without health checks.
            method: as grpc names it, ``/SERVICE/METHOD``.
            peer: grpc's name of the caller's end.
        """
        self._log = log
        self._audit = audit
        self._refusals = refusals
        self._counts = counts
        self._is_health = method.startswith(_HEALTH)
        self._address = address_of(peer)
        self._began = time.monotonic()
        self._fields: dict[str, Any] = {
            "method": safe_text(method).rsplit("/", 1)[-1],
            "address": self._address,
        }

    def add_caller(self, caller: Identity) -> None:
        """Add who calls."""
        self._fields |= {
            "caller": caller.login_or_tags,
            "sub": caller.subject,
            "node": caller.node,
        }

    def add_request(self, request: Any) -> None:
        """Add the fields of the request that are set, made safe for a log; none replaces who calls."""
        for field, value in request.ListFields():
            name = f"requested_{field.name}" if field.name in self._fields else field.name
            self._fields[name] = safe_text(value) if isinstance(value, str) else value

    def begins(self) -> None:
        """Log that a change is about to be made, so that none is made without a line.

        Raises:
            LogUnavailableError: the line cannot be written.
        """
        try:
            self._audit.info("admin call begins", outcome="begins", **self._fields)
        except OSError as error:
            raise LogUnavailableError(
                "the server cannot log the call, and changes nothing", detail=str(error)
            ) from error

    def answered(self, answer: Any = None) -> None:
        """Log that the call was successful.

        Raises:
            LogUnavailableError: the line cannot be written.
        """
        if isinstance(answer, admin_pb2.GenerateNewKeysResponse):
            self._fields["key_id"] = answer.key.key_id
        try:
            self._write(self._audit.info, "ok")
        except OSError as error:
            raise LogUnavailableError(
                "the server cannot log the call, which was carried out", detail=str(error)
            ) from error

    def cancelled(self) -> None:
        """Log that the call was cancelled."""
        self._write(self._log.warning, "cancelled")

    def failed(self, error: Exception) -> None:
        """Log why the call failed; repeated failures of one caller are counted."""
        if not isinstance(error, TailboneError):
            self._refuse("error", "internal", exc_info=error)
            return
        detail = {"detail": error.detail} if error.detail else {}
        self._refuse("warning", error.code, message=error.message, **detail)

    def _write(self, write: Callable[..., None], outcome: str) -> None:
        # Health checks repeat all the time, and a watch of the health ends by being cancelled.
        write = self._log.debug if self._is_health else write
        write("admin call", outcome=outcome, **self._all())
        self._count(outcome)

    def _refuse(self, level: str, outcome: str, **why: Any) -> None:
        self._count(outcome)
        self._refusals.add(outcome, self._address, level, "admin call", outcome=outcome, **why, **self._all())

    def _count(self, outcome: str) -> None:
        if not self._is_health:
            self._counts[outcome] += 1

    def _all(self) -> dict[str, Any]:
        return self._fields | {"took_ms": round((time.monotonic() - self._began) * 1000, 1)}
