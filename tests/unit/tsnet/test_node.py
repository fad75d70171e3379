"""Facts about a node's settings; the native library is not loaded."""

from __future__ import annotations

import json
from pathlib import Path

from tailbone.tsnet.node import NodeSettings


def test_settings_in_the_words_of_the_native_library() -> None:
    """Times in milliseconds; every field is there."""
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
    """Neither by repr nor by str."""
    settings = NodeSettings(hostname="x", dir=Path("/d"), authkey="tskey-auth-k")
    assert "tskey" not in f"{settings!r} {settings}"
