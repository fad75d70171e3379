"""The metrics: their names, what each shows, and the formats."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from harness.waiting import until_async
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_metrics

from tailbone.counting import Histogram, IssuerCounts, StoreCounts
from tailbone.daemon.metrics import LAG_BOUNDS_S, METRICS, Metrics, State, measured_lag
from tailbone.errors import Problem
from tailbone.keys.listing import KeyInfo
from tailbone.tsnet.library import Stats

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def key(kid: str, state: str, **changes: Any) -> KeyInfo:
    return KeyInfo(key_id=kid, algorithm="RS256", created_at=1795518000, state=state, **changes)


def state(**changes: Any) -> State:
    """Return a state in which every metric has a value."""
    counts = IssuerCounts()
    counts.issued("listed", 0.0007)
    counts.requests["refused", "other"] += 2
    counts.refusals["audience_not_allowed"] += 2
    store = StoreCounts()
    store.called("write", "store_conflict", 0.02)
    values: dict[str, Any] = {
        "version": "1.2.3",
        "commit": "abc1234",
        "counts": counts,
        "lag_s": Histogram(LAG_BOUNDS_S),
        "store": store,
        "admin_calls": Counter({"ok": 3, "forbidden": 2}),
        "reasons": [Problem("key_waiting", "keys: tb-1 signs in 3 s"), Problem("key_waiting", "keys: tb-2")],
        "notes": [Problem("outside_ok", "outside: ok"), Problem("jwks_stale", "jwks: stale")],
        "keys": [
            key("tb-1", "active", next_change=("retires", 1795604400.0)),
            key("tb-2", "published", next_change=("signs", 1795604300.0)),
            key("x", "published", foreign=True),
        ],
        "jwks_read_at": 1795518200.5,
        "outside_ok": True,
        "node_state": "Running",
        "node_key_expiry": 1795999999.0,
        "native": Stats(handles=3, connections=4, rejected=2, dropped_events=0, goroutines=50, max_procs=1),
    }
    return State(**(values | changes))


def scrape(**changes: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the samples by name and labels."""
    text = Metrics(lambda: state(**changes)).page("").body.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_metrics(text)
        for sample in family.samples
    }


def value(name: str, samples: dict[tuple[str, frozenset[tuple[str, str]]], float], **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_each_name_follows_the_conventions() -> None:
    """A prefix; _total for counters only; base units; no name twice."""
    for definition in METRICS:
        assert re.fullmatch(r"tailbone(_[a-z]+)+", definition.name)
        assert definition.name.endswith("_total") == (definition.kind == "counter")
        assert not re.search(r"_(ms|minutes|hours|days|milliseconds|kilobytes)\b", definition.name)
        assert definition.help.endswith(".")
    names = [definition.name for definition in METRICS]
    assert len(set(names)) == len(names)


def test_every_metric_has_a_sample() -> None:
    """The state of these tests leaves out none, and the scrape has no other but the library's."""
    families = {family.name for family in text_metrics(Metrics(state).page("").body.decode())}
    assert {name for name in families if name.startswith("tailbone_")} == {
        definition.name.removesuffix("_total") for definition in METRICS
    }
    assert {name for name in families if not name.startswith("tailbone_")} == {
        "process_virtual_memory_bytes",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_cpu_seconds",
        "process_open_fds",
        "process_max_fds",
    }


def test_the_values() -> None:
    """Of one state."""
    samples = scrape()
    assert value("tailbone_build_info", samples, version="1.2.3", commit="abc1234") == 1
    assert value("tailbone_ready", samples) == 0
    assert value("tailbone_not_ready_reason", samples, code="key_waiting") == 1
    assert value("tailbone_note", samples, code="jwks_stale") == 1
    assert value("tailbone_token_requests_total", samples, outcome="issued", audience="listed") == 1
    assert value("tailbone_token_requests_total", samples, outcome="refused", audience="other") == 2
    assert value("tailbone_token_requests_total", samples, outcome="failed", audience="unread") == 0
    assert value("tailbone_refusals_total", samples, code="audience_not_allowed") == 2
    assert value("tailbone_keys", samples, state="active") == 1
    assert value("tailbone_keys", samples, state="published") == 1
    assert value("tailbone_keys", samples, state="foreign") == 1
    assert value("tailbone_keys", samples, state="faulty") == 0
    assert value("tailbone_key_created_timestamp_seconds", samples, kid="tb-1", state="active") == 1795518000
    assert value("tailbone_next_rotation_timestamp_seconds", samples) == 1795604400
    assert value("tailbone_jwks_read_timestamp_seconds", samples) == 1795518200.5
    assert value("tailbone_outside_check_success", samples) == 1
    assert value("tailbone_store_calls_total", samples, operation="write", outcome="store_conflict") == 1
    assert value("tailbone_store_call_duration_seconds_sum", samples) == 0.02
    assert value("tailbone_admin_calls_total", samples, outcome="forbidden") == 2
    assert value("tailbone_node_state", samples, state="Running") == 1
    assert value("tailbone_node_state", samples, state="NeedsLogin") == 0
    assert value("tailbone_node_key_expiry_timestamp_seconds", samples) == 1795999999
    assert value("tailbone_connections", samples) == 4
    assert value("tailbone_connections_rejected_total", samples) == 2


def test_a_result_that_is_good_is_not_a_note() -> None:
    """The outside check also notes its success, which has its own metric."""
    assert ("tailbone_note", frozenset({("code", "outside_ok")})) not in scrape()


def test_the_buckets_are_cumulative() -> None:
    """As the format requires."""
    counts = IssuerCounts()
    for seconds in (0.0004, 0.0007, 0.0009, 30.0):
        counts.issued("none", seconds)
    samples = scrape(counts=counts)
    name = "tailbone_token_duration_seconds"
    found = [value(f"{name}_bucket", samples, le=le) for le in ("0.00025", "0.0005", "0.001", "5.0", "+Inf")]
    assert found == [0, 1, 3, 3, 4]
    assert value(f"{name}_count", samples) == 4
    assert value(f"{name}_sum", samples) == pytest.approx(30.002)


def test_what_is_unknown_is_absent() -> None:
    """Before there is a node and a key, and without rotation, bucket and outside check."""
    samples = scrape(
        keys=(), jwks_read_at=None, outside_ok=None, node_state="", node_key_expiry=None, native=None
    )
    names = {name for name, _ in samples}
    assert not names & {
        "tailbone_key_created_timestamp_seconds",
        "tailbone_next_rotation_timestamp_seconds",
        "tailbone_jwks_read_timestamp_seconds",
        "tailbone_outside_check_success",
        "tailbone_node_key_expiry_timestamp_seconds",
        "tailbone_connections",
    }
    assert value("tailbone_node_state", samples, state="Running") == 0


def test_both_formats_can_be_parsed() -> None:
    """Prometheus's text by default, OpenMetrics if the scraper accepts it."""
    metrics = Metrics(state)
    plain, modern = metrics.page("text/html, */*"), metrics.page(OPEN_METRICS)
    assert plain.content_type.startswith("text/plain; version=0.0.4")
    assert modern.content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert len(list(text_metrics(plain.body.decode()))) == len(list(open_metrics(modern.body.decode())))


@pytest.mark.parametrize("version", ["abc", "1.x", ""])
def test_a_version_that_is_not_a_number(version: str) -> None:
    """Any peer may send it: it is answered with the text, not with an internal error."""
    page = Metrics(state).page(f"application/openmetrics-text; version={version}")
    assert page.body.startswith(b"# HELP tailbone_build_info ")


async def test_the_lag_of_the_event_loop_is_measured() -> None:
    """While the context is open."""
    lag = Histogram(LAG_BOUNDS_S)
    async with measured_lag(lag):
        await until_async(lambda: sum(lag.counts) > 0)
    measured = sum(lag.counts)
    assert lag.total >= 0
    assert measured == sum(lag.counts)


def test_the_library_is_not_imported_without_metrics() -> None:
    """It takes megabytes, and time at each start."""
    code = (
        "import sys; from tailbone.daemon import daemon; from tailbone.daemon.servers import import_servers;"
        "import_servers(('issuer', 'admin')); print('prometheus_client' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"
