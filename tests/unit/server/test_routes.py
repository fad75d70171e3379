"""The paths of the issuer."""

from __future__ import annotations

from tailbone.server import Endpoints
from tailbone.server.routes import ROUTES


def test_each_path_has_its_handler() -> None:
    """No route names a method that does not exist."""
    assert [route.handler for route in ROUTES.values() if not hasattr(Endpoints, route.handler)] == []
