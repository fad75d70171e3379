"""An issuer for the agent's tests, which answers as the test says."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tailbone.client.token import Token

if TYPE_CHECKING:
    from tailbone.errors import TailboneError


class Issuer:
    """Issues numbered tokens, or fails.

    Attributes:
        asked: audience and lifetime of each request so far.
        error: raised instead of an answer.
        life_s: how long its tokens are valid.
        may_answer: requests wait while it is not set.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, float | None]] = []
        self.error: TailboneError | None = None
        self.life_s = 1000.0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def issue(self, audience: str = "", ttl: float | None = None) -> Token:
        self.asked.append((audience, ttl))
        self.may_answer.wait(30)
        if self.error:
            raise self.error
        return Token(f"token-{len(self.asked)}", 2000, self.life_s)


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()
