"""The admin servers that the tests of this folder use."""

from __future__ import annotations

from harness.admin import (  # noqa: F401  fixtures
    admin,
    closed_port,
    go_server,
    granting,
    http_port,
    no_proxy,
    run,
    silent_port,
    start_admin,
)
