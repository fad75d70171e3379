"""Independent HTTP clients get tokens."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.servers import Server
    from harness.tailnet import Caller

ASK = """
const answer = await fetch(process.argv[1], {method: "POST", headers: {Accept: "application/json"}});
console.log(JSON.stringify({status: answer.status, body: await answer.json()}));
"""


def test_fetch_of_node(server: Callable[..., Server], caller: Callable[..., Caller]) -> None:
    """Node's fetch() sends Sec-Fetch- fields like a browser, and gets a token."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    route = caller().to(server("--allowed-host", "127.0.0.1").name)
    command = [node, "--input-type=module", "--eval", ASK, f"http://{route.address}/issue"]
    done = subprocess.run(command, check=True, capture_output=True, timeout=30)
    answer = json.loads(done.stdout)
    assert (answer["status"], sorted(answer["body"])) == (200, ["expires_at", "token"])


def test_curl(server: Callable[..., Server], caller: Callable[..., Caller]) -> None:
    """curl sends a large body with Expect: 100-continue, and gets a token."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    route = caller().to(server("--allowed-host", "127.0.0.1").name)
    command = [
        curl,
        "-sS",
        "-H",
        "Expect: 100-continue",
        "--data-binary",
        "@-",
        f"http://{route.address}/issue",
    ]
    done = subprocess.run(command, input=b"x" * 16000, check=True, capture_output=True, timeout=30)
    assert sorted(json.loads(done.stdout)) == ["expires_at", "token"]
