"""The paths that say how the process is, which need no caller; a port outside the tailnet has only these."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 -- msgspec resolves it
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from tailbone.errors import UnknownPathError
from tailbone.server.hosts import check_source
from tailbone.server.responses import Request, Response
from tailbone.server.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tailbone.errors import Problem
    from tailbone.server.hosts import AllowedHosts
    from tailbone.server.routes import Route

_encode = msgspec.json.Encoder().encode


class Page(NamedTuple):
    """A page of metrics."""

    body: bytes
    content_type: str


class _NotReady(msgspec.Struct, frozen=True):
    error: str
    message: str
    reasons: Sequence[str]
    notes: Sequence[str]


class State(msgspec.Struct, frozen=True):
    """Whether a token could be issued now, in what any peer may see.

    Attributes:
        ready: whether one could.
        reasons: codes of what stops it.
        notes: codes of other problems, or the texts of what is public anyway.
    """

    ready: bool
    reasons: Sequence[str]
    notes: Sequence[str]


class _Health(msgspec.Struct, frozen=True):
    ok: bool
    version: str
    commit: str


@dataclass(kw_only=True, eq=False)
class Probes:
    """Answers for the whole process, on each port.

    Attributes:
        readiness: returns why no token can be issued now; empty if one can.
        notes: returns problems that do not stop token issuance, such as ``jwks_stale``.
        version: for ``/_healthz``.
        commit: for ``/_healthz``.
        metrics: returns the metrics in the best form for an Accept field.
    """

    readiness: Callable[[], Sequence[Problem]]
    notes: Callable[[], Sequence[Problem]]
    version: str
    commit: str
    metrics: Callable[[str], Page] | None = None

    def healthz(self) -> Response:
        """``GET /_healthz``: whether the process answers."""
        return Response(_encode(_Health(ok=True, version=self.version, commit=self.commit)))

    def readyz(self) -> Response:
        """``GET /_readyz``: whether a token could be issued now."""
        state = self.state()
        return Response(_encode(state)) if state.ready else self.not_ready(state.reasons)

    def state(self) -> State:
        """Return whether a token could be issued now."""
        reasons = _codes(self.readiness())
        return State(not reasons, reasons, _notes(self.notes()))

    def not_ready(self, codes: Sequence[str]) -> Response:
        """Answer 503 with the codes of the reasons."""
        message = f"not ready: {', '.join(codes)}; tailbone keys status says more"
        return Response(_encode(_NotReady("not_ready", message, codes, _notes(self.notes()))), 503)

    def metrics_for(self, request: Request) -> Response:
        """``GET /metrics``: the metrics, in the form that the Accept field asks for.

        Raises:
            UnknownPathError: metrics are not served.
        """
        if self.metrics is None:
            raise UnknownPathError("no metrics: server.metricsBinding is not tailnet")
        page = self.metrics(request.headers.get("accept", ""))
        return Response(page.body, content_type=page.content_type)


class OutsideProbes:
    """The handlers of a port outside the tailnet, which answers nothing else.

    Attributes:
        routes: the paths that are answered there.
        hosts: the Host fields of requests for metrics.
    """

    def __init__(self, probes: Probes, paths: Iterable[str], hosts: AllowedHosts) -> None:
        """Answer ``paths``, which must be probes.

        Args:
            probes: what is answered.
            paths: where.
            hosts: see the attribute.
        """
        self.routes: Mapping[str, Route] = {path: ROUTES[path] for path in paths}
        self._probes = probes
        self.hosts = hosts

    async def healthz(self, _request: Request) -> Response:
        """See ``Probes.healthz``."""
        return self._probes.healthz()

    async def readyz(self, _request: Request) -> Response:
        """See ``Probes.readyz``."""
        return self._probes.readyz()

    async def metrics(self, request: Request) -> Response:
        """See ``Probes.metrics_for``."""
        check_source(request.conn_info.ctx.head, self.hosts)
        return self._probes.metrics_for(request)


def _codes(problems: Iterable[Problem]) -> list[str]:
    """Return the codes of problems, which any peer may see; their texts name keys, paths and hosts."""
    return list(dict.fromkeys(problem.code for problem in problems))


def _notes(problems: Iterable[Problem]) -> list[str]:
    """Return the codes, or the texts of what is public anyway."""
    return list(dict.fromkeys(problem.public or problem.code for problem in problems))
