"""An issuer on loopback for tests of commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from click.testing import CliRunner, Result

from harness.web import Page
from tailbone.cli import tailbone
from tailbone.client.token import claims_of

if TYPE_CHECKING:
    from harness.web import WebServer


class LoopbackIssuer:
    """A web server that answers as an issuer does, with one token, and commands that ask it.

    Attributes:
        web: the web server; its pages can be replaced.
        token: the token, for the audience "service".
        claims: the token's claims.
    """

    def __init__(self, web: WebServer, token: str) -> None:
        self.web = web
        self.token = token
        self.claims = claims_of(token)
        body = json.dumps({"token": token, "expires_at": self.claims["exp"]}).encode()
        for query in ("", "?audience=service"):
            web.pages[f"/issue{query}"] = Page(body)

    def run(self, *arguments: object, **variables: str) -> Result:
        """Run a command with this issuer, and without an agent."""
        environ = {"HOME": "/nonexistent", "TAILBONE_ISSUE_URL": self.web.url, "TAILBONE_AGENT": ""}
        return CliRunner().invoke(tailbone, [*map(str, arguments)], env=environ | variables)
