"""Reads the probes and metrics that a server serves outside the tailnet."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from harness.programs import Program

_Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> _Samples:
    """Return samples by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: _Samples, name: str, **labels: str) -> float | None:
    """Return the value of a sample; None if there is none."""
    return samples.get((name, frozenset(labels.items())))


def outside(program: Program) -> list[str]:
    """Wait until the server listens outside the tailnet, and return the addresses."""
    program.wait_for('"event":"serving outside the tailnet"')
    return [
        record["address"] for record in program.records() if record["event"] == "serving outside the tailnet"
    ]


def get(address: str, path: str) -> tuple[int, str]:
    """Return status and body of an address outside the tailnet."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
