"""``tailbone health`` as a probe runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.log import Lines

from tailbone.daemon.health import Health, health_socket
from tailbone.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Any]

NOTE = Problem("jwks_stale", "jwks: the last reading is 9 min old")
REASON = Problem("starting", "server: starting")


async def test_ready(tailbone: Run, tmp_path: Path) -> None:
    """The exit code is 0, and notes are shown."""
    async with health_socket(tmp_path, lambda: Health((), (NOTE,)), Lines()):
        ended = await tailbone("health", "--ts-dir", tmp_path)
    assert ended == (0, "ready\njwks_stale: jwks: the last reading is 9 min old\n", "")


async def test_not_ready(tailbone: Run, tmp_path: Path) -> None:
    """The exit code is 1, and the reasons are shown."""
    async with health_socket(tmp_path, lambda: Health((REASON,), ()), Lines()):
        ended = await tailbone("health", TB_SERVER_TAILSCALE_DIR=str(tmp_path))
    assert ended == (1, "not ready\nstarting: server: starting\n", "")


async def test_as_json(tailbone: Run, tmp_path: Path) -> None:
    """Reasons and notes have codes and texts."""
    async with health_socket(tmp_path, lambda: Health((REASON,), (NOTE,)), Lines()):
        ended = await tailbone("health", "--ts-dir", tmp_path, "-o", "json")
    assert ended.status == 1
    assert json.loads(ended.out) == {
        "ready": False,
        "reasons": [{"code": "starting", "text": "server: starting", "public": ""}],
        "notes": [{"code": "jwks_stale", "text": "jwks: the last reading is 9 min old", "public": ""}],
    }


async def test_no_server(tailbone: Run, tmp_path: Path) -> None:
    """The exit code is 1, and one line names the folder."""
    ended = await tailbone("health", "--ts-dir", tmp_path)
    assert ended == (1, "", f"tailbone: no server runs with the folder {tmp_path} (--ts-dir)\n")
