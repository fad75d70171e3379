"""Serve public documents on a loopback port, as a web server in front of a bucket does."""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

from tailbone.jwks.store import cache_control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

_SILENCE_S = 10.0
_POLL_S = 0.01


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, endpoint: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET
        super().__init__(endpoint, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report a failure, unless the client has disconnected."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serve_documents(
    endpoint: tuple[str, int], documents: Mapping[str, Callable[[], bytes | None]], *, max_age_s: float
) -> Iterator[int]:
    """Answer GET and HEAD on a loopback port, in threads.

    Args:
        endpoint: host and port to listen on; port 0 picks a free one.
        documents: for each path, a function that returns the JSON document, or None for an answer of 503.
        max_age_s: how long a document may be cached, in seconds.

    Yields:
        The port.

    Raises:
        OSError: the port cannot be listened on.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = _SILENCE_S

        def do_GET(self) -> None:
            document = documents.get(self.path)
            if document is None:
                self._answer(HTTPStatus.NOT_FOUND, b"")
            elif (body := document()) is None:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"")
            else:
                self._answer(HTTPStatus.OK, body)

        do_HEAD = do_GET  # noqa: N815 -- the base class's name

        def _answer(self, status: HTTPStatus, body: bytes) -> None:
            found = status == HTTPStatus.OK
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", cache_control(max_age_s) if found else "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class's name
            """Do nothing: the log is for tokens."""

    with _Server(endpoint, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(_POLL_S,), name="documents", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
