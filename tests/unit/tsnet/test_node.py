"""The settings of a node; the native library is not loaded."""

from __future__ import annotations

import json
from pathlib import Path

from tailbone.tsnet.node import NodeSettings


def test_settings_are_encoded_for_the_native_library() -> None:
    """Every field is included, and times are in milliseconds."""
    settings = NodeSettings(
        hostname="x", dir=Path("/d"), authkey="tskey-auth-k", tags=("tag:a",), join_retry_s=0.25, verbose=True
    )
    assert json.loads(settings.encode()) == {
        "hostname": "x",
        "dir": "/d",
        "auth_key": "tskey-auth-k",
        "control_url": "",
        "ephemeral": False,
        "tags": ["tag:a"],
        "verbose": True,
        "loopback": False,
        "ignore_env": False,
        "join_retry_ms": 250,
    }


def test_the_auth_key_is_not_shown() -> None:
    """Neither repr nor str contains it."""
    settings = NodeSettings(hostname="x", dir=Path("/d"), authkey="tskey-auth-k")
    assert "tskey" not in f"{settings!r} {settings}"
