"""A terminal with a shell, at which a test types as a person does."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
from typing import TYPE_CHECKING, Self

from harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping


class Terminal:
    """An interactive bash with job control on a pseudo-terminal.

    Attributes:
        screen: everything that was shown so far, typed text too.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start the shell with this environment."""
        self.screen = ""
        self._near, self._far = pty.openpty()
        # A session leader without a terminal gets the first one that it opens.
        shell = 'exec bash --norc --noprofile --noediting -i <"$0" >"$0" 2>&1'
        self._process = subprocess.Popen(
            ["sh", "-c", shell, os.ttyname(self._far)],
            env={**environment, "PS1": "$ ", "TERM": "dumb"},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._far)
        self._reader.join(5)
        os.close(self._near)

    def _read(self) -> None:
        while True:
            try:
                self.screen += os.read(self._near, 4096).decode()
            except OSError:  # the last process has closed it
                return

    def type(self, text: str) -> None:
        """Type keys, such as ``exit\\n``, or ``\\x03`` for Ctrl-C."""
        os.write(self._near, text.encode())

    def wait_for(self, text: str) -> None:
        """Wait until a text is shown."""
        until(lambda: text in self.screen, f"{text!r} is shown", shows=lambda: self.screen)
