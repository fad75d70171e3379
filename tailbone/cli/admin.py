"""The client that commands use to ask a running server, made from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tailbone.admin.client import AdminClient
    from tailbone.config.model import Config

DEFAULT_HOST = "tailbone"


def admin_client(config: Config) -> AdminClient:
    """Return a client of the server that the settings name."""
    from tailbone.admin.client import AdminClient

    return AdminClient(config.admin.client.host or DEFAULT_HOST, config.admin.client.port)
