"""SignatureQueue: how many signatures may wait for a thread."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tailbone.errors import SigningBusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES: Final = 128
"""How many signatures may be in progress. Two threads make 128 with RSA-4096 in less than a second."""

SHARE: Final = PLACES // 4
"""How many of them may be for one caller, so that none can take all places."""


class SignatureQueue:
    """The signatures with large keys, which threads make: each holds a place until it is made."""

    def __init__(self) -> None:
        self._by_caller: dict[str, int] = {}

    @contextmanager
    def place(self, caller: str) -> Iterator[None]:
        """Hold a place for a caller.

        Raises:
            SigningBusyError: all places are taken, or the caller has its share.
        """
        taken = self._by_caller.get(caller, 0)
        if taken >= SHARE or sum(self._by_caller.values()) >= PLACES:
            raise SigningBusyError("too many tokens are being signed; try again in a second")
        self._by_caller[caller] = taken + 1
        try:
            yield
        finally:
            self._by_caller[caller] -= 1
            if not self._by_caller[caller]:
                del self._by_caller[caller]
