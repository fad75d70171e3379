"""The measured servers, each in its own process: tailbone, and the plain Go server."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Self

from tests.bench.program import Program, ProgramError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.bench.load import LoadGenerator
    from tests.bench.session import Session

_IDENTITY: Final = "tag:tailbone"
_STARTED: Final = b" started "
_READY_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.002


class TailboneServer(Program):
    """``tailbone server start`` with default settings but no rate limit, its log at info in a file.

    Attributes:
        hostname: its name in the tailnet.
        place: the folder with its keys, its node's state and its log.
    """

    def __init__(
        self,
        session: Session,
        key: str,
        *,
        command: Sequence[str] = (),
        place: Path | None = None,
        hostname: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a server.

        Args:
            session: the session that it belongs to.
            key: an auth key.
            command: the command to run instead of the session's ``tailbone``.
            place: the folder of an earlier server, to restart it; by default a new one.
            hostname: the earlier server's.
            variables: settings that are not the default.
        """
        self.hostname = hostname or session.name("tailbone")
        self.place = place or session.place("server")
        self._log_begins = 0
        super().__init__(
            [
                *(command or session.server),
                "server",
                "start",
                "--ts-control-url",
                session.devnet.info.control_url,
                "--ts-hostname",
                self.hostname,
                "--ts-dir",
                str(self.place / "node"),
                "--dir",
                str(self.place / "keys"),
            ],
            # One node asks for as many tokens as it can get.
            session.environment(
                TB_SERVER_TAILSCALE_AUTHKEY=key, TB_SERVER_RATELIMIT="0", **(variables or {})
            ),
            self.place / "log",
        )

    async def __aenter__(self) -> Self:
        log = self.place / "log"
        self._log_begins = log.stat().st_size if log.exists() else 0
        return await super().__aenter__()

    async def ready(self) -> None:
        """Wait until its log says that it has started. Nothing may connect to it before.

        The tailnet may lose the first packets of an earlier connection, and repeats them only after 5 s.
        """
        limit = time.monotonic() + _READY_S
        with (self.place / "log").open("rb") as log:
            log.seek(self._log_begins)
            said = b""
            while _STARTED not in said:
                self.check()
                if time.monotonic() > limit:
                    raise ProgramError(f"{self.hostname} did not start within {_READY_S:g} s")
                await asyncio.sleep(_LOOK_EVERY_S)
                said += log.read()


class GoServer(Program):
    """The baseline (peer/serve.go): net/http, LocalClient.WhoIs, crypto/rsa, without a log.

    Attributes:
        hostname: its name in the tailnet.
        signature_us: its cost of a bare RSA-2048 signature, in µs; known when it is ready.
    """

    def __init__(self, session: Session, key: str) -> None:
        """Prepare the server, which joins with ``key``."""
        self.signature_us = 0.0
        self.hostname = session.name("baseline")
        place = session.place("baseline")
        super().__init__(
            [
                str(session.peer),
                "serve",
                "-control",
                session.devnet.info.control_url,
                "-dir",
                str(place),
                "-hostname",
                self.hostname,
            ],
            session.environment(PEER_AUTHKEY=key),
            place / "log",
            speaks=True,
        )

    async def ready(self) -> None:
        """Wait until it listens."""
        self.signature_us = float((await self.hear())["signature_us"])


async def server_key(session: Session) -> str:
    """Create an auth key for a server."""
    return await session.devnet.add_key(_IDENTITY)


class Running:
    """A server that has issued its first token: ``async with Running(server, load)``."""

    def __init__(self, server: TailboneServer | GoServer, load: LoadGenerator) -> None:
        """Take a prepared server, and the load generator that requests its first token."""
        self._server = server
        self._load = load
        self._stack = AsyncExitStack()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._server.pid

    @property
    def hostname(self) -> str:
        """Its name in the tailnet."""
        return self._server.hostname

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._server)
            try:
                await self._server.ready()
                await self._load.first_token(self._server.hostname)
            except ProgramError:
                self._server.check()  # the server's own error is more helpful
                raise
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
