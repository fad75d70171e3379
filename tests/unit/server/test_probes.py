"""Probes: on the issuer's port, and on a port outside the tailnet."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tailbone import web
from tailbone.errors import Problem
from tailbone.server import AllowedHosts, IssuerServer, OutsideProbes, Probes
from tailbone.server.probes import Page
from tailbone.server.routes import HEALTH_PATH, METRICS_PATH, READY_PATH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from conftest import Running, World


def page(accept: str) -> Page:
    return Page(f"# {accept}\n".encode(), "text/plain; version=0.0.4")


@pytest.fixture
def probes(world: World) -> Probes:
    return Probes(
        readiness=lambda: world.reasons,
        notes=lambda: world.notes,
        version="1.2.3",
        commit="abc1234",
        metrics=page,
    )


@asynccontextmanager
async def outside(world: World, probes: Probes, *paths: str) -> AsyncIterator[httpx.AsyncClient]:
    """Serve on a loopback port."""
    hosts = AllowedHosts(["localhost", "monitored.example"], any_address=True)
    server = IssuerServer(OutsideProbes(probes, paths, hosts), world.log, world.counts)  # type: ignore[arg-type]
    listening = web.listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    await server.start_on(listening)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client
    finally:
        await server.close(0.0)


async def test_the_answers_are_those_of_the_issuer(running: Running, world: World, probes: Probes) -> None:
    """Health and readiness, byte for byte, when ready and when not."""
    async with outside(world, probes, HEALTH_PATH, READY_PATH, METRICS_PATH) as client:
        for reasons in ([], [Problem("key_waiting", "keys: tb-1 signs in 3 s")]):
            world.reasons = reasons
            for path in (HEALTH_PATH, READY_PATH):
                answer = await running.ask(f"GET {path} HTTP/1.1\r\nHost: tailbone\r\n\r\n".encode())
                there = await client.get(path)
                assert (there.status_code, there.content) == (answer.status, answer.body)


async def test_nothing_else_is_served_there(world: World, probes: Probes) -> None:
    """Neither tokens nor documents; the message lists what is."""
    async with outside(world, probes, METRICS_PATH) as client:
        for method, path in (("POST", "/issue"), ("GET", "/whoami"), ("GET", READY_PATH), ("GET", "/")):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["message"]) == (
                404,
                "no such path; there are GET /metrics",
            )
        assert (await client.post(METRICS_PATH)).status_code == 405


async def test_metrics_come_in_the_form_that_is_asked_for(world: World, probes: Probes) -> None:
    """The Accept field reaches the library; the answer is never cached."""
    async with outside(world, probes, METRICS_PATH) as client:
        answer = await client.get(METRICS_PATH, headers={"Accept": "a/b"})
    assert (answer.status_code, answer.text) == (200, "# a/b\n")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Host": "10.1.2.3:8081"}, 200),
        ({"Host": "[fd00::1]"}, 200),
        ({"Host": "localhost:9464"}, 200),
        ({"Host": "monitored.example"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
async def test_a_web_page_gets_no_metrics(
    world: World, probes: Probes, fields: dict[str, str], status: int
) -> None:
    """In DNS rebinding the Host field is the page's name, which is never an address."""
    async with outside(world, probes, METRICS_PATH) as client:
        assert (await client.get(METRICS_PATH, headers=fields)).status_code == status


async def test_the_issuer_serves_metrics_if_they_are_on(running: Running, world: World) -> None:
    """On its own port, for its own names; 404 if not."""
    ask = b"GET /metrics HTTP/1.1\r\nHost: %b\r\n\r\n"
    answer = await running.ask(ask % b"tailbone")
    assert (answer.status, answer.json["message"]) == (
        404,
        "no metrics: server.metricsBinding is not tailnet",
    )
    world.endpoints.probes.metrics = page
    answer = await running.ask(ask % b"tailbone")
    assert (answer.status, answer.body) == (200, b"# \n")
    assert (await running.ask(ask % b"evil.example")).status == 421


async def test_each_request_for_a_token_is_counted_once(running: Running, world: World) -> None:
    """By outcome and class of audience; other refusals by code only."""
    ask = b"POST /issue%b HTTP/1.1\r\nHost: %b\r\n\r\n"
    await running.ask(ask % (b"", b"tailbone"))
    await running.ask(ask % (b"?audience=sts.example", b"tailbone"))
    await running.ask(ask % (b"?audience=other", b"tailbone"))
    await running.ask(ask % (b"?dry_run=true", b"tailbone"))
    await running.ask(ask % (b"", b"evil.example"))
    world.signing = None
    await running.ask(ask % (b"", b"tailbone"))
    await running.ask(b"GET /nowhere HTTP/1.1\r\nHost: tailbone\r\n\r\n")
    counts: Any = world.counts
    assert {kind: count for kind, count in counts.requests.items() if count} == {
        ("issued", "none"): 1,
        ("issued", "listed"): 1,
        ("refused", "other"): 1,
        ("previewed", "none"): 1,
        ("refused", "unread"): 1,
        ("failed", "none"): 1,
    }
    assert counts.refusals == {
        "audience_not_allowed": 1,
        "wrong_host": 1,
        "no_signing_key": 1,
        "not_found": 1,
    }
    assert sum(counts.issue_s.counts) == 2


async def test_a_token_without_its_line_is_a_failure_of_a_known_audience(
    running: Running, world: World
) -> None:
    """The audience was read before the line was written."""
    world.audit.fails = OSError(28, "No space left on device")
    await running.ask(b"POST /issue HTTP/1.1\r\nHost: tailbone\r\n\r\n")
    requests = world.counts.requests
    assert {kind: count for kind, count in requests.items() if count} == {("failed", "none"): 1}
    assert sum(world.counts.issue_s.counts) == 0
