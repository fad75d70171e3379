"""Metrics and probes of a server in its own process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from harness import monitoring
from harness.scrape import get, outside, parsed, value
from harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.programs import Program
    from harness.servers import Server
    from harness.tailnet import Caller, Tailnet

REFUSED_AUDIENCE = "a-secret-audience"


def test_a_scrape_after_tokens_refusals_and_key_changes(
    server: Callable[..., Server],
    caller: Callable[..., Caller],
    tailbone: Callable[..., Program],
    tmp_path: Path,
) -> None:
    """The numbers are those of what happened; no label has a name, an address or a caller's text."""
    running = server(
        "--metrics-binding",
        "127.0.0.1:0",
        "--audience",
        "vault",
        TB_KEYS_BUCKET=(tmp_path / "bucket").as_uri(),
        TB_KEYS_ROTATEEVERY="24h",
    )
    [address] = outside(running.program)
    person = caller()
    route = person.to(running.name)
    until(lambda: route.get("/_readyz").status == 200, "ready")
    for query, status in (
        ("", 200),
        ("", 200),
        ("?audience=vault", 200),
        (f"?audience={REFUSED_AUDIENCE}", 403),
        ("?ttl=x", 400),
    ):
        answer = route.issue(query)
        assert answer.status == status
    sub = route.get("/whoami").json["sub"]
    assert route.get("/nowhere").status == 404
    assert route.get("/metrics").status == 404
    admin = person.to(running.name, 50051)
    host, _, port = admin.address.rpartition(":")
    generated = tailbone("keys", "generate", "--host", host, "--port", port)
    assert generated.wait() == 0, generated.output()
    refused = tailbone("keys", "remove", "unknown", "--yes", "--host", host, "--port", port)
    assert refused.wait() == 1, refused.output()

    status, text = get(address, "/metrics")
    assert status == 200
    samples = parsed(text)
    requests = "tailbone_token_requests_total"
    assert value(samples, requests, outcome="issued", audience="none") == 2
    assert value(samples, requests, outcome="issued", audience="listed") == 1
    assert value(samples, requests, outcome="refused", audience="other") == 1
    assert value(samples, requests, outcome="refused", audience="unread") == 1
    assert value(samples, "tailbone_refusals_total", code="audience_not_allowed") == 1
    assert value(samples, "tailbone_refusals_total", code="bad_parameter") == 1
    assert value(samples, "tailbone_refusals_total", code="not_found") == 2
    assert value(samples, "tailbone_token_duration_seconds_count") == 3
    assert 0 < (value(samples, "tailbone_token_duration_seconds_sum") or 0) < 30
    assert value(samples, "tailbone_ready") == 1
    assert value(samples, "tailbone_keys", state="active") == 1
    assert value(samples, "tailbone_keys", state="published") == 1
    rotation = value(samples, "tailbone_next_rotation_timestamp_seconds")
    start = value(samples, "process_start_time_seconds")
    assert rotation is not None
    assert start is not None
    assert 0 < rotation - start < 24 * 3600 + 120
    assert (value(samples, "tailbone_jwks_read_timestamp_seconds") or 0) > start
    assert (value(samples, "tailbone_store_calls_total", operation="write", outcome="ok") or 0) >= 2
    assert 0 < (value(samples, "tailbone_store_call_duration_seconds_sum") or 0) < 30
    assert value(samples, "tailbone_admin_calls_total", outcome="ok") == 1
    assert value(samples, "tailbone_admin_calls_total", outcome="unknown_key") == 1
    assert value(samples, "tailbone_node_state", state="Running") == 1
    assert (value(samples, "tailbone_connections") or 0) >= 0
    assert (value(samples, "tailbone_event_loop_lag_seconds_count") or 0) > 0
    assert (value(samples, "process_resident_memory_bytes") or 0) > 20e6

    labels = {text for _, pairs in samples for pair in pairs for text in pair}
    for private in (REFUSED_AUDIENCE, sub, running.name, person.name, *running.addresses, *person.addresses):
        assert not [label for label in labels if private in label]


def test_metrics_on_the_tailnet(server: Callable[..., Server], caller: Callable[..., Caller]) -> None:
    """The issuer's port serves them, for its own names only; nothing listens elsewhere."""
    running = server("--metrics-binding", "tailnet")
    route = caller().to(running.name)
    answer = route.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")
    assert value(parsed(route.get("/metrics").body.decode()), "tailbone_node_state", state="Running") == 1
    refused = route.get("/metrics", headers={"Host": "evil.example"})
    assert (refused.status, refused.json["error"]) == (421, "wrong_host")
    assert running.events("serving outside the tailnet") == []


def test_dashboard_and_alerts_use_metrics_that_exist(
    server: Callable[..., Server], caller: Callable[..., Caller], tailnet: Tailnet, tmp_path: Path
) -> None:
    """Each name is in the scrape of a server with a bucket, rotation, outside check and an expiring node."""
    running = server(
        "--metrics-binding",
        "127.0.0.1:0",
        # Nobody serves the documents there, which the outside check reports.
        "--issuer",
        "http://127.0.0.1:9",
        authkey=tailnet.key("dev@example.com"),
        TB_KEYS_BUCKET=(tmp_path / "bucket").as_uri(),
        TB_KEYS_ROTATEEVERY="24h",
        TB_KEYS_OUTSIDECHECK="on",
    )
    [address] = outside(running.program)
    route = caller().to(running.name)
    until(lambda: route.get("/_readyz").status == 200, "ready")
    assert route.issue("?audience=other").status == 403

    def names() -> set[str]:
        return {name for name, _ in parsed(get(address, "/metrics")[1])}

    found = until(
        lambda: found if "tailbone_note" in (found := names()) else None, "a note of the outside check"
    )
    # It exists while there are reasons, as in test_probes_before_and_after_the_join.
    used = monitoring.metrics() - {"tailbone_not_ready_reason"}
    assert {name for name in used if not {name, f"{name}_bucket"} & found} == set()


def codes(body: str) -> Any:
    return json.loads(body)["reasons"]


def test_probes_before_and_after_the_join(
    server: Callable[..., Server], caller: Callable[..., Caller], tailnet: Tailnet
) -> None:
    """A kubelet sees a living process that is not ready, and why; after the join, one that is."""
    tailnet.do("pause_control")
    try:
        running = server("--probe-binding", "127.0.0.1:0", ready=False)
        [address] = outside(running.program)
        assert get(address, "/_healthz")[0] == 200
        status, body = get(address, "/_readyz")
        assert (status, bool(codes(body))) == (503, True)
        possible = {"starting", "node_not_running", "no_key", "key_not_published", "key_waiting"}
        assert set(codes(body)) <= possible
        samples = parsed(get(address, "/metrics")[1])
        assert value(samples, "tailbone_ready") == 0
        assert any(name == "tailbone_not_ready_reason" for name, _ in samples)
        assert value(samples, "tailbone_node_state", state="Running") == 0
    finally:
        tailnet.do("resume_control")
    running.wait_until_serving()
    until(lambda: get(address, "/_readyz")[0] == 200, "ready")
    assert value(parsed(get(address, "/metrics")[1]), "tailbone_node_state", state="Running") == 1
    for path in ("/issue", "/whoami", "/.well-known/jwks.json", "/"):
        assert get(address, path)[0] == 404
    assert caller().to(running.name).get("/metrics").status == 404
    assert running.program.stop() == 0
    with pytest.raises(OSError):
        get(address, "/_healthz")


def test_a_port_in_use_ends_the_start(server: Callable[..., Server]) -> None:
    """Exit code 1 and one line, before a node joins."""
    first = server("--probe-binding", "127.0.0.1:0", ready=False)
    [address] = outside(first.program)
    second = server("--probe-binding", address, ready=False).program
    assert second.wait() == 1
    [line] = second.err
    assert line.startswith("tailbone: 127.0.0.1 port ")
    assert "cannot be listened on" in line
