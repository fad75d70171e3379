"""Programs that verify tailbone's tokens, from PyPI wheels; and the issuer that they trust."""

from __future__ import annotations

import socket
import subprocess
import sysconfig
from contextlib import ExitStack
from pathlib import Path

import jwt
import pytest

from harness.devs import Dev
from harness.programs import TAILBONE, Program, clean_environment
from harness.waiting import until
from harness.web import Page, WebServer

AUDIENCE = "sts.example"
OTHER_AUDIENCE = "other.example"
PERSON = "dev@example.com"
CI = "tag:ci"
OTHER = "tag:other"


class TrustedIssuer:
    """A ``tailbone dev`` with a person and two tagged nodes, whose keys sign as soon as they are published.

    Attributes:
        url: the claim iss.
        jwks_url: of its JWKS.
    """

    def __init__(self, folder: Path, web: WebServer | None = None) -> None:
        """Start it.

        Args:
            folder: of its state.
            web: serves its documents at the URL of its issuer; by default dev's own port does.
        """
        self._keys = folder / "tailbone-dev" / "keys"
        environment = clean_environment(folder, TB_KEYS_ACTIVATEAFTER="0s")
        flags = [f"--as={identity}" for identity in (PERSON, CI, OTHER)]
        flags += [f"--audience={audience}" for audience in (AUDIENCE, OTHER_AUDIENCE)]
        command = [*TAILBONE, "dev", "--listen", "127.0.0.1:0", "-o", "json", "--state-dir", str(folder)]
        self._environment = environment
        if web is not None:
            flags.append(f"--issuer={web.url}")
        self._program = Program([*command, *flags], env=environment, cwd=folder)
        self._dev = Dev(self._program)
        self.url = web.url if web else f"http://{self._dev.jwks.address}"
        self.jwks_url: str = self._dev.facts["jwks_url"]
        self.control_url: str = self._dev.facts["control_url"]
        self._web = web
        self.publish()

    def publish(self) -> None:
        """Copy the documents to the web server, as they are now."""
        if self._web is not None:
            for path in ("/.well-known/openid-configuration", "/.well-known/jwks.json"):
                self._web.pages[path] = Page(self._dev.jwks.get(path).body)

    def issuer_url(self, identity: str = CI) -> str:
        """Return where a caller gets tokens."""
        return str(self._dev.facts["callers"][identity])

    def close(self) -> None:
        self._program.end()

    def token(self, identity: str = CI, audience: str = AUDIENCE) -> str:
        """Return a token of one of its callers."""
        answer = self._dev.caller(identity).issue(f"?audience={audience}")
        assert answer.status == 200, answer.body
        return str(answer.json["token"])

    def expired_token(self, identity: str = CI) -> str:
        """Return a token that expired an hour ago: one of today's, signed again with earlier times."""
        token = self.token(identity)
        claims = jwt.decode(token, options={"verify_signature": False})
        for name in ("iat", "nbf", "exp"):
            claims[name] -= 2 * 3600
        header = jwt.get_unverified_header(token)
        key = jwt.PyJWK.from_json((self._keys / f"{header['kid']}.private.jwk").read_text())
        return jwt.encode(claims, key.key, algorithm="RS256", headers=header)

    def subject(self, identity: str = CI) -> str:
        """Return the claim sub of a caller's tokens."""
        return str(jwt.decode(self.token(identity), options={"verify_signature": False})["sub"])

    def rotate(self) -> str:
        """Make another key sign, and return the kid of the previous one."""
        before = kid_of(self.token())
        self._keys_command("generate")
        until(lambda: kid_of(self.token()) != before, "a token of the next key")
        return before

    def remove(self, kid: str) -> None:
        """Take a key out of the JWKS."""
        self._keys_command("remove", kid, "--yes")

    def admin_flags(self) -> list[str]:
        """Return the flags with which commands reach the admin API."""
        host, _, port = self._dev.facts["admin"].rpartition(":")
        return ["--host", host, "--port", port]

    def _keys_command(self, *arguments: str) -> None:
        subprocess.run(
            [*TAILBONE, "keys", *arguments, *self.admin_flags()],
            env=self._environment,
            check=True,
            capture_output=True,
            timeout=60,
        )


def kid_of(token: str) -> str:
    """Return the kid of a token's header."""
    return str(jwt.get_unverified_header(token)["kid"])


def program(package: str, name: str) -> str:
    """Return the path of a program of a wheel; skip the test where there is no wheel."""
    path = Path(sysconfig.get_path("scripts"), name)
    if not path.exists():
        pytest.skip(f"{package} has no wheel for {sysconfig.get_platform()}")
    return str(path)


def free_ports(count: int) -> list[int]:
    """Return free loopback ports."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
