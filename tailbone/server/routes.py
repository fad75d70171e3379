"""The paths of the issuer, and what each accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from tailbone.jwks.discovery import DISCOVERY_PATH, JWKS_PATH

if TYPE_CHECKING:
    from collections.abc import Mapping

ISSUE_PATH: Final = "/issue"
WHOAMI_PATH: Final = "/whoami"
PAGE_PATH: Final = "/"
HEALTH_PATH: Final = "/_healthz"
READY_PATH: Final = "/_readyz"
METRICS_PATH: Final = "/metrics"


class Route(NamedTuple):
    """The methods that a path accepts, and the name of the method of ``Handlers`` that answers."""

    methods: tuple[str, ...]
    handler: str


_GET: Final = ("GET", "HEAD")
ROUTES: Final = {
    ISSUE_PATH: Route(("POST",), "issue"),
    WHOAMI_PATH: Route(_GET, "whoami"),
    PAGE_PATH: Route(_GET, "page"),
    HEALTH_PATH: Route(_GET, "healthz"),
    READY_PATH: Route(_GET, "readyz"),
    METRICS_PATH: Route(_GET, "metrics"),
    JWKS_PATH: Route(_GET, "jwks"),
    DISCOVERY_PATH: Route(_GET, "discovery"),
}
"""What each path accepts, and what answers it."""


class Handlers(Protocol):
    """Answers the requests of one listening socket.

    Attributes:
        routes: the paths that are answered there.
    """

    @property
    def routes(self) -> Mapping[str, Route]: ...


def add_routes(app: Any, handlers: Handlers) -> None:
    """Register the routes of ``handlers`` in a Sanic app."""
    for path, (methods, handler) in handlers.routes.items():
        app.add_route(getattr(handlers, handler), path, methods=methods, name=handler, strict_slashes=True)
