"""Check that descriptors, native handles and goroutines of this process are not leaked."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from harness.waiting import until
from tailbone.tsnet.library import stats


def descriptors() -> list[str]:
    """Return what the open descriptors of this process point to."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return sorted(found)


class NothingLeft:
    """Check in ``with NothingLeft():`` that what is opened inside is closed some seconds after the end.

    Go and tsnet end their goroutines a moment after a close has returned, so the check waits for them.

    Args:
        timeout_s: how long it waits, in seconds.
        slack: how many more goroutines are allowed. Go itself may start one after a collection. A private
            tailnet in this process has some for each connection of other processes' nodes, which come and
            go. A node that is left has dozens.
    """

    def __init__(self, *, timeout_s: float = 5.0, slack: int = 1) -> None:
        self._timeout_s = timeout_s
        self._slack = slack

    def __enter__(self) -> Self:
        self._stats = stats()
        self._descriptors = descriptors()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.check()

    def check(self) -> None:
        """Wait until everything is as before.

        Raises:
            AssertionError: something was leaked.
        """
        before, timeout_s = self._stats, self._timeout_s
        until(lambda: stats().handles <= before.handles, "native handles closed", timeout_s=timeout_s)
        until(lambda: stats().connections <= before.connections, "connections ended", timeout_s=timeout_s)
        until(
            lambda: len(descriptors()) <= len(self._descriptors),
            "descriptors closed",
            timeout_s=timeout_s,
            shows=lambda: f"{self._descriptors} -> {descriptors()}",
        )
        until(
            lambda: stats().goroutines <= before.goroutines + self._slack,
            "goroutines ended",
            timeout_s=timeout_s,
            shows=lambda: f"{before.goroutines} -> {stats().goroutines}",
        )
