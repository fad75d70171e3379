"""Tailscale's API as far as an OAuth client secret needs it."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.tailnet import Tailnet


@contextmanager
def oauth_api(tailnet: Tailnet) -> Iterator[str]:
    """Exchange every client secret for an auth key with the requested tags.

    Gives its URL. The real one is https://api.tailscale.com.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/api/v2/oauth/token":
                answer = {"access_token": "access", "token_type": "Bearer", "expires_in": 3600}
            else:
                assert self.path == "/api/v2/tailnet/-/keys"
                assert self.headers["Authorization"] == "Bearer access"
                [tag] = json.loads(sent)["capabilities"]["devices"]["create"]["tags"]
                answer = {"id": "k", "key": tailnet.key(tag)}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as api:
        thread = threading.Thread(target=api.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{api.server_port}"
        finally:
            api.shutdown()
            thread.join()
