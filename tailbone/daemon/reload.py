"""Reloader: rereads the settings when asked, and applies those that can change while the server runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tailbone.config.reload import compare
from tailbone.daemon.addresses import check_ports
from tailbone.errors import ConfigError
from tailbone.process.cancellation import in_thread
from tailbone.process.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.config.model import Config
    from tailbone.process.log import Logger


class Reloader:
    """Keeps the last good settings of a server.

    Attributes:
        asked: set to request a reload; several requests before it runs count as one.
    """

    def __init__(self, loaded: Config, reread: Callable[[], Config], log: Logger | None = None) -> None:
        """Make one that has not been asked.

        Args:
            loaded: the settings that the server was started with, before the auth key was read.
            reread: loads the settings again; raises ConfigError if they are wrong. It is called in a thread.
            log: receives one line about what changed, or why nothing did; by default the process's.
        """
        self.asked = asyncio.Event()
        self._current = loaded
        self._reread = reread
        self._log = log or get_logger()

    async def run(self, apply: Callable[[Config], None]) -> None:
        """Reload whenever it is asked for, until cancelled; ``apply`` is as for ``reload``."""
        while True:
            await self.asked.wait()
            self.asked.clear()
            await self.reload(apply)

    async def reload(self, apply: Callable[[Config], None]) -> None:
        """Read the settings again. If they are wrong, nothing changes.

        Args:
            apply: gets the settings with their new values, and applies them without awaiting, so that each
                request is answered by either the old or the new settings.
        """
        try:
            found = await in_thread(self._reread)
            check_ports(found)
        except (ConfigError, OSError) as error:
            self._log.error("settings not reloaded: the previous ones stay in effect", error=str(error))
            return
        change = compare(self._current, found)
        self._current = change.config
        apply(change.config)
        self._log.info("settings reloaded", changed=change.changed)
        if change.need_restart:
            self._log.warning("changed settings need a restart", settings=change.need_restart)
