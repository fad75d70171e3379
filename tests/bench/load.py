"""The load generator: a node of the tailnet that requests tokens, in its own process (peer/load.go)."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import msgspec

from tests.bench.program import Program, ProgramError

if TYPE_CHECKING:
    from tests.bench.session import Session

IDENTITY = "dev@example.com"


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a load.

    Attributes:
        requests: how many were answered with a token.
        failed: how many were not.
        errors: what failed, and how often.
        seconds: from the first request to the last answer.
        p50_ms: median latency in ms; the connection counts where each request has its own.
        slow: how many took longer than 0.9 s, as after a lost SYN.
        buckets: answers in each slice of the requested time.
        began: Unix time, seconds.
        ended: Unix time, seconds.
    """

    requests: int
    failed: int
    errors: dict[str, int]
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    slow: int
    buckets: list[int]
    began: float
    ended: float

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.requests / self.seconds

    @property
    def failures(self) -> str:
        """The failures, for a note; empty if there were none."""
        return ", ".join(f"{times} × {what}" for what, times in self.errors.items())


class LoadGenerator:
    """``async with LoadGenerator(session) as load: await load.run(...)``."""

    def __init__(self, session: Session) -> None:
        """Prepare a node."""
        self._session = session
        self._stack = AsyncExitStack()
        self._program: Program | None = None

    async def __aenter__(self) -> Self:
        session = self._session
        place = session.place("load")
        self._program = Program(
            [
                str(session.peer),
                "load",
                "-control",
                session.devnet.info.control_url,
                "-dir",
                str(place),
                "-hostname",
                session.name("load"),
            ],
            session.environment(PEER_AUTHKEY=await session.devnet.add_key(IDENTITY)),
            place / "log",
            speaks=True,
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._program)
            await self._program.hear()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def run(
        self,
        peer: str,
        *,
        connections: int,
        requests: int = 0,
        seconds: float = 0.0,
        fresh: bool = False,
        server_ends: bool = False,
        bucket_s: float = 0.0,
    ) -> LoadReport:
        """Request tokens.

        Args:
            peer: host name of the server.
            connections: at once; each asks one request after the other.
            requests: in total; 0 for as many as fit.
            seconds: for how long; 0 for no limit.
            fresh: a new connection for each request.
            server_ends: with ``fresh``: the server closes it, which leaves it the TIME-WAIT state.
            bucket_s: slice of the time for ``LoadReport.buckets``; 0 for none.
        """
        return await self._order(
            op="run",
            peer=peer,
            connections=connections,
            requests=requests,
            seconds=seconds,
            fresh=fresh,
            server_ends=server_ends,
            bucket_s=bucket_s,
        )

    async def first_token(self, peer: str) -> LoadReport:
        """Ask a started server until it issues a token; ``ended`` is that time."""
        return await self._order(op="first", peer=peer, timeout_s=1.0)

    async def _order(self, **order: Any) -> LoadReport:
        if self._program is None:
            raise ProgramError("the load generator was not entered: use it in `async with`")
        answer = await self._program.ask(order)
        if answer["error"]:
            raise ProgramError(f"the load generator: {answer['error']}")
        return msgspec.convert(answer, LoadReport)
