"""Ask an agent on this machine for tokens, over its Unix socket."""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from tailbone.client.dialing import dial_unix, reason_of
from tailbone.client.issuer import decode_answer, request
from tailbone.client.token import Token
from tailbone.errors import IssuerAnswerError, IssuerUnreachableError

_TIMEOUT_S: Final = 30.0


def default_socket() -> Path:
    """Return where an agent of this user listens by default: in the user's runtime folder, else in /run."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or "/run") / "tailbone" / "agent.sock"


class LocalAgent:
    """An agent on this machine. It has the tokens ready, and is in the tailnet or reaches the issuer."""

    def __init__(self, path: Path, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Ask the agent that listens on ``path``; nothing is connected yet."""
        self._path = path
        self._timeout_s = timeout_s

    @property
    def runs(self) -> bool:
        """Whether an agent listens; a killed one leaves its socket behind."""
        try:
            dial_unix(self._path, timeout_s=self._timeout_s).close()
        except OSError:
            return False
        return True

    def issue(self, audience: str = "", ttl: float | None = None) -> Token:
        """Return a token; see ``Issuer.issue``."""
        query = {"audience": audience} if audience else {}
        if ttl is not None:
            query["ttl"] = f"{int(ttl)}s"
        where = f"the agent at {self._path}"
        try:
            connection = dial_unix(self._path, timeout_s=self._timeout_s)
            response = request(connection, "GET", f"/token?{urlencode(query)}", host="localhost")
        except OSError as error:
            raise IssuerUnreachableError(f"{where} does not answer: {reason_of(error)}") from None
        except http.client.HTTPException:
            raise IssuerAnswerError(f"{where} did not answer with HTTP") from None
        answer = decode_answer(response, where)
        value, expires_at, left_s = (answer.get(name) for name in ("token", "expires_at", "expires_in"))
        if isinstance(value, str) and isinstance(expires_at, int) and isinstance(left_s, int):
            return Token(value, expires_at, left_s)
        raise IssuerAnswerError(f"{where} is not a tailbone agent")
