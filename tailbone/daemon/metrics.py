"""The metrics of a server in Prometheus's formats; imported only if they are served.

``METRICS`` is the only place that names them. Labels have few values, and never a token, subject, node or
address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from tailbone.keys.record import CONFIRMED, Phase
from tailbone.server.probes import Page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from prometheus_client.core import Metric

    from tailbone.counting import Histogram, IssuerCounts, StoreCounts
    from tailbone.errors import Problem
    from tailbone.keys.listing import KeyInfo
    from tailbone.tsnet.library import Stats

_LAG_PAUSE_S: Final = 0.5
LAG_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

_KEY_STATES: Final = (*(phase.value for phase in (Phase.PENDING, *CONFIRMED)), "faulty", "foreign")
_NODE_STATES: Final = (
    "NoState",
    "NeedsLogin",
    "NeedsMachineAuth",
    "Starting",
    "Running",
    "Stopped",
    "Closed",
)


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A server at the time of a scrape.

    Attributes:
        version: of the build.
        commit: of the build.
        counts: of the issuer.
        lag_s: how late the event loop was.
        store: calls of the JWKS's store.
        admin_calls: calls of the admin API, by outcome.
        reasons: why no token can be issued now.
        notes: other problems.
        keys: the keys of the JWKS, and own keys that are not in it yet.
        jwks_read_at: when the published JWKS was last read, in Unix seconds; None before that.
        outside_ok: the result of the check from outside; None before the first, and if there is none.
        node_state: tailscale's name of the state; empty before there is a node.
        node_key_expiry: when the node's key expires, in Unix seconds; None for never.
        native: the native library's counters; None before there is a node.
    """

    version: str
    commit: str
    counts: IssuerCounts
    lag_s: Histogram
    store: StoreCounts
    admin_calls: Mapping[str, int]
    reasons: Sequence[Problem] = ()
    notes: Sequence[Problem] = ()
    keys: Sequence[KeyInfo] = ()
    jwks_read_at: float | None = None
    outside_ok: bool | None = None
    node_state: str = ""
    node_key_expiry: float | None = None
    native: Stats | None = None


_Samples: TypeAlias = Iterable[tuple[Sequence[str], float]]


class Definition(NamedTuple):
    """One metric.

    Attributes:
        name: with its unit, and with ``_total`` for a counter.
        kind: its type.
        help: one sentence.
        read: returns its samples, with the values of the labels; a histogram has one.
        labels: the names of its labels.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    read: Callable[[State], Any]
    labels: tuple[str, ...] = ()


def _one(value: float | None) -> _Samples:
    return () if value is None else [((), float(value))]


def _codes(problems: Iterable[Problem]) -> _Samples:
    return [((code,), 1.0) for code in sorted({problem.code for problem in problems})]


def _counted(counts: Mapping[Any, int]) -> _Samples:
    return [((key,) if isinstance(key, str) else key, count) for key, count in sorted(counts.items())]


def _key_state(key: KeyInfo) -> str:
    return "foreign" if key.foreign else key.state


def _keys(state: State) -> _Samples:
    states = [_key_state(key) for key in state.keys]
    return [((name,), states.count(name)) for name in _KEY_STATES]


def _key_ages(state: State) -> _Samples:
    own = [key for key in state.keys if not key.foreign and key.created_at]
    return [((key.key_id, key.state), key.created_at) for key in own]


def _next_rotation(state: State) -> _Samples:
    turns = [key.next_change[1] for key in state.keys if key.next_change and key.next_change[0] == "retires"]
    return _one(min(turns, default=None))


def _node_states(state: State) -> _Samples:
    return [((name,), name == state.node_state) for name in _NODE_STATES]


METRICS: Final = (
    Definition(
        "tailbone_build_info",
        "gauge",
        "1, with the version and commit of this server.",
        lambda state: [((state.version, state.commit), 1.0)],
        ("version", "commit"),
    ),
    Definition(
        "tailbone_ready",
        "gauge",
        "Whether a token could be issued now, as /_readyz says.",
        lambda state: _one(not state.reasons),
    ),
    Definition(
        "tailbone_not_ready_reason",
        "gauge",
        "1 for each reason why no token can be issued now, by the code of /_readyz.",
        lambda state: _codes(state.reasons),
        ("code",),
    ),
    Definition(
        "tailbone_note",
        "gauge",
        "1 for each problem that does not stop token issuance, by the code of /_readyz.",
        lambda state: _codes(note for note in state.notes if note.code != "outside_ok"),
        ("code",),
    ),
    Definition(
        "tailbone_token_requests_total",
        "counter",
        "Requests for tokens, by outcome (issued, previewed, refused: the caller's fault, failed: the "
        "server's) and audience (none, listed: in issuer.audiences, other, unread: refused before that).",
        lambda state: _counted(state.counts.requests),
        ("outcome", "audience"),
    ),
    Definition(
        "tailbone_token_duration_seconds",
        "histogram",
        "How long issued tokens took, from the parsed request to the answer.",
        lambda state: state.counts.issue_s,
    ),
    Definition(
        "tailbone_refusals_total",
        "counter",
        "Refused requests of any path of the issuer, by the error's code.",
        lambda state: _counted(state.counts.refusals),
        ("code",),
    ),
    Definition(
        "tailbone_keys",
        "gauge",
        "Keys of the JWKS and own keys that are not in it yet, by state; foreign: of another server.",
        _keys,
        ("state",),
    ),
    Definition(
        "tailbone_key_created_timestamp_seconds",
        "gauge",
        "When each own key was generated, in Unix time.",
        _key_ages,
        ("kid", "state"),
    ),
    Definition(
        "tailbone_next_rotation_timestamp_seconds",
        "gauge",
        "When the signing key retires, in Unix time; absent without keys.rotateEvery.",
        _next_rotation,
    ),
    Definition(
        "tailbone_jwks_read_timestamp_seconds",
        "gauge",
        "When the published JWKS was last read, in Unix time; each publication ends with such a read. Absent "
        "without keys.bucket.",
        lambda state: _one(state.jwks_read_at),
    ),
    Definition(
        "tailbone_outside_check_success",
        "gauge",
        "Whether verifiers accept the published documents, by the last check of keys.outsideCheck; absent "
        "before it.",
        lambda state: _one(state.outside_ok),
    ),
    Definition(
        "tailbone_store_calls_total",
        "counter",
        "Calls of the store of keys.bucket, by operation (read, write) and outcome (ok, timeout, or an "
        "error's code).",
        lambda state: _counted(state.store.calls),
        ("operation", "outcome"),
    ),
    Definition(
        "tailbone_store_call_duration_seconds",
        "histogram",
        "How long those calls took, whatever their outcome.",
        lambda state: state.store.took_s,
    ),
    Definition(
        "tailbone_admin_calls_total",
        "counter",
        "Calls of the admin API without health checks, by outcome (ok, cancelled, or an error's code).",
        lambda state: _counted(state.admin_calls),
        ("outcome",),
    ),
    Definition(
        "tailbone_node_state",
        "gauge",
        "1 for tailscale's current state of the node, 0 for the others.",
        _node_states,
        ("state",),
    ),
    Definition(
        "tailbone_node_key_expiry_timestamp_seconds",
        "gauge",
        "When the node's key expires, in Unix time; absent if never.",
        lambda state: _one(state.node_key_expiry),
    ),
    Definition(
        "tailbone_connections",
        "gauge",
        "Open connections over the tailnet.",
        lambda state: _one(state.native.connections if state.native else None),
    ),
    Definition(
        "tailbone_connections_rejected_total",
        "counter",
        "Connections that were reset because there were too many.",
        lambda state: _one(state.native.rejected if state.native else None),
    ),
    Definition(
        "tailbone_event_loop_lag_seconds",
        "histogram",
        "How late the event loop ran a timer, measured twice a second.",
        lambda state: state.lag_s,
    ),
)
"""All metrics, besides those that ``ProcessCollector`` gives: process_resident_memory_bytes and others."""


class Metrics(Collector):
    """Renders the metrics of a server."""

    def __init__(self, state: Callable[[], State]) -> None:
        """Render what ``state`` returns at each scrape."""
        self._state = state
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registration does not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield each metric that has samples."""
        state = self._state()
        for definition in METRICS:
            yield from _family(definition, state)

    def page(self, accept: str) -> Page:
        """Return all metrics in the best form for an Accept field: Prometheus's text, or OpenMetrics."""
        try:
            encode, content_type = choose_encoder(accept)
        except TypeError:  # it cannot compare a version that is not a number
            encode, content_type = choose_encoder("")
        return Page(encode(self._registry), content_type)


def _family(definition: Definition, state: State) -> Iterator[Metric]:
    if definition.kind == "histogram":
        histogram: Histogram = definition.read(state)
        yield HistogramMetricFamily(
            definition.name, definition.help, buckets=_buckets(histogram), sum_value=histogram.total
        )
        return
    family_type = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
    family = family_type(definition.name, definition.help, labels=definition.labels)
    for labels, value in definition.read(state):
        family.add_metric(labels, value)
    if family.samples:
        yield family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return the cumulative buckets."""
    buckets, below = [], 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        below += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(below)))
    return buckets


@asynccontextmanager
async def measured_lag(histogram: Histogram) -> AsyncIterator[None]:
    """Measure the event loop's lag while the context is open."""
    task = asyncio.create_task(_measure_lag(histogram))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _measure_lag(histogram: Histogram) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_PAUSE_S
        await asyncio.sleep(_LAG_PAUSE_S)
        histogram.observe(max(0.0, loop.time() - due))
