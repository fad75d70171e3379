"""The drills of docs/operations.md: their commands, on a private tailnet with a folder as bucket."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from harness.programs import TAILBONE, Program, run
from harness.waiting import until

from docs.pages import DOCS, blocks, lines, tailbone_commands

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.tailnet import Caller, Route, Tailnet

OPERATIONS = DOCS / "operations.md"
ISSUER = "https://issuer.example.com"
JWKS = ".well-known/jwks.json"
KID = "tb-1795518230"
SETTINGS = next(block.text for block in blocks(OPERATIONS) if block.language == "toml")


def commands(title: str = "") -> list[str]:
    """Return the command lines below a heading of the page; by default all."""
    found = [block for block in blocks(OPERATIONS, title) if block.language == "sh"]
    return [line for block in found for line in lines(block.text)]


class Operator:
    """Somebody who has read the page, on machines that are folders."""

    def __init__(
        self,
        folder: Path,
        tailnet: Tailnet,
        start: Callable[..., Program],
        caller: Caller,
        environment: dict[str, str],
    ) -> None:
        self.folder = folder
        self.bucket = folder / "bucket"
        self._tailnet = tailnet
        self._start = start
        self._caller = caller
        self._admin: dict[str, Route] = {}
        programs = folder / "bin"
        programs.mkdir()
        (programs / "tailbone").write_text(f'#!/bin/sh\nexec {" ".join(TAILBONE)} "$@"\n')
        (programs / "tailbone").chmod(0o755)
        self._environment = environment | {"PATH": f"{programs}:{environment['PATH']}"}

    def machine(self, name: str) -> Path:
        """Return the folder that is a machine's ``/``, with the page's settings in it."""
        root = self.folder / name
        settings = root / "etc/tailbone/tailbone.toml"
        if not settings.exists():
            settings.parent.mkdir(parents=True)
            text = SETTINGS.replace('"/var/lib', f'"{root}/var/lib')
            settings.write_text(text.replace("my-public-keys", self.bucket.as_uri()))
        return root

    def here(self, command: str, machine: str) -> str:
        """Return a command of the page with the paths of a machine."""
        root = self.machine(machine)
        return command.replace("/var/lib", f"{root}/var/lib").replace("/etc/", f"{root}/etc/")

    def start(
        self, command: str, machine: str, name: str, *, first: bool = True, **variables: str
    ) -> tuple[Program, Route]:
        """Start a server by a command of the page, and wait until it issues tokens."""
        [words] = tailbone_commands(self.here(command, machine))
        variables |= {
            "TB_LOG_FORMAT": "json",
            "TB_SERVER_TAILSCALE_CONTROLURL": self._tailnet.control_url,
            "TB_SERVER_TAILSCALE_AUTHKEY": self._tailnet.key("tag:tailbone") if first else "",
            "TB_SERVER_RATELIMIT": "0",
            # The page's issuer is not on this machine.
            "TB_KEYS_OUTSIDECHECK": "off",
        }
        program = self._start(*words, **variables)
        program.wait_for('"event":"started"', timeout_s=60)
        # Not by its name, which the nodes of earlier tests may have.
        [address, *_] = addresses_of(program)
        route = self._caller.to(address)
        until(lambda: route.get("/_readyz").status == 200, "ready", timeout_s=60, shows=program.output)
        self._admin[name] = self._caller.to(address, 50051)
        return program, route

    def run(self, command: str, machine: str = "one", server: str = "tailbone") -> str:
        """Run a command of the page, and return what it prints."""
        for name in sorted(self._admin, reverse=True):
            place = "--host {} --port {}".format(*self._admin[name].address.rsplit(":", 1))
            command = command.replace(f"--host {name} ", f"{place} ")
        variables = {"TB_KEYS_OUTSIDECHECK": "off"}
        if server in self._admin:
            host, _, port = self._admin[server].address.rpartition(":")
            variables |= {"TB_ADMIN_CLIENT_HOST": host, "TB_ADMIN_CLIENT_PORT": port}
        ended = run(
            ["sh", "-euc", self.here(command, machine)],
            env=self._environment | variables,
            cwd=self.folder,
            timeout_s=60,
        )
        assert ended.wait() == 0, ended.output()
        return "\n".join(ended.out)

    def states(self, server: str = "tailbone") -> dict[str, str]:
        """Return the keys that a server lists, with their states."""
        listed = json.loads(self.run("tailbone keys list -o json", server=server))
        return {key["key_id"]: "foreign" if key["foreign"] else key["state"] for key in listed}

    def published(self) -> dict[str, Any]:
        """Return the keys of the bucket's JWKS."""
        return {key["kid"]: key for key in json.loads((self.bucket / JWKS).read_text())["keys"]}

    def verifies(self, token: str) -> bool:
        """Return whether a verifier with the bucket's JWKS accepts the token."""
        key = self.published().get(kid_of(token))
        if key is None:
            return False
        jwt.decode(token, jwt.PyJWK(key), algorithms=["RS256"], issuer=ISSUER)
        return True


def addresses_of(program: Program) -> list[str]:
    """Return the tailnet addresses of a server that has started."""
    started = program.event("started")
    assert started
    return list(started["addresses"])


def token_of(route: Route) -> str:
    """Return a new token."""
    return str(route.issue().json["token"])


def kid_of(token: str) -> str:
    """Return the kid in a token's header."""
    return str(jwt.get_unverified_header(token)["kid"])


@pytest.fixture
def operator(
    tmp_path: Path,
    tailnet: Tailnet,
    start: Callable[..., Program],
    caller: Callable[..., Caller],
    environment: dict[str, str],
) -> Operator:
    """An operator with one machine and no server."""
    return Operator(tmp_path, tailnet, start, caller(), environment)


[START] = [line for line in commands("Backup and restore") if "server start" in line]


@pytest.mark.integration
def test_backup_and_restore(operator: Operator) -> None:
    """On another machine, it is the same node with the same keys, but for one that was removed meanwhile."""
    umask, save, make, extract, housekeeping, start = commands("Backup and restore")
    program, route = operator.start(START, "one", "tailbone")
    removed = kid_of(token_of(route))
    operator.run("tailbone keys generate")
    operator.run(f"{umask}; {save}")
    assert (operator.folder / "tailbone.tar").stat().st_mode & 0o777 == 0o600
    operator.run(f"tailbone keys remove {removed} --yes")
    token = token_of(route)
    addresses = addresses_of(program)
    assert program.stop() == 0
    shutil.rmtree(operator.folder / "one")

    operator.machine("another")
    for command in (make, extract, housekeeping):
        operator.run(command, "another")
    keys = operator.folder / "another/var/lib/tailbone/keys"
    assert (keys / "removed" / f"{removed}.private.jwk").exists()
    assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o700, 0o700)
    program, route = operator.start(start, "another", "tailbone", first=False)
    assert addresses_of(program) == addresses
    assert kid_of(token_of(route)) == kid_of(token)
    assert operator.states() == {kid_of(token): "active"}
    assert operator.verifies(token)


@pytest.mark.integration
def test_two_servers(operator: Operator) -> None:
    """Each lists the other's key as foreign; one goes, and its key with it, while the other issues tokens."""
    second, list_one, list_two, remove = commands("Two servers")
    _, route = operator.start(START, "one", "tailbone")
    # Not the five minutes of verifiers' caches.
    program, other = operator.start(second, "two", "tailbone-2", TB_KEYS_ACTIVATEAFTER="1s")
    tokens = token_of(route), token_of(other)
    kid, other_kid = map(kid_of, tokens)
    assert all(map(operator.verifies, tokens))
    assert kid in operator.run(list_one)
    assert other_kid in operator.run(list_two)
    assert operator.states("tailbone") == {kid: "active", other_kid: "foreign"}
    assert operator.states("tailbone-2") == {kid: "foreign", other_kid: "active"}
    assert program.stop() == 0
    operator.run(f"{remove} --yes".replace(KID, other_kid))
    assert list(operator.published()) == [kid]
    assert operator.verifies(token_of(route))


@pytest.mark.integration
def test_a_stolen_key(operator: Operator) -> None:
    """The other key signs at once, and no token of the stolen one verifies, old or forged."""
    generate, look, remove = commands("A stolen key")[:3]
    assert [generate, look, remove] == [
        "tailbone keys generate",
        "tailbone keys list",
        f"tailbone keys remove {KID} --yes",
    ]
    _, route = operator.start(START, "one", "tailbone")
    token = token_of(route)
    stolen = kid_of(token)
    assert operator.verifies(token)
    operator.run(generate)
    assert operator.states()[stolen] == "active"
    operator.run(remove.replace(KID, stolen))
    new = token_of(route)
    assert kid_of(new) != stolen
    assert operator.verifies(new)
    assert not operator.verifies(token)


@pytest.mark.skipif(shutil.which("jq") is None, reason="there is no jq")
def test_a_key_is_removed_from_the_jwks_by_hand(tmp_path: Path) -> None:
    """The page's jq leaves the other keys as they are."""
    [edit] = [line for line in commands("A stolen key") if line.startswith("jq ")]
    other = {"kid": "tb-2", "kty": "EC"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [{"kid": KID, "kty": "EC"}, other]}))
    shell = shutil.which("sh")
    assert shell
    ended = run([shell, "-c", edit], env={"PATH": str(Path(shutil.which("jq") or "").parent)}, cwd=tmp_path)
    assert ended.wait() == 0, ended.output()
    assert json.loads((tmp_path / "without.json").read_text()) == {"keys": [other]}


@pytest.mark.integration
def test_check_its_state(operator: Operator) -> None:
    """Each command ends with 0 while the server is well; so does the check before an upgrade."""
    operator.start(START, "one", "tailbone")
    looks = commands("Check its state")
    assert len(looks) == 3
    [check] = [line for line in commands("Upgrade") if "config check" in line]
    assert all(map(operator.run, looks))
    assert operator.run(check.replace("/opt/tailbone/bin/", "")) == ""


def test_each_command_is_run_by_a_test() -> None:
    """All but those of systemd, pip and AWS's CLI, which are parsed only."""
    tested = ("Backup and restore", "Two servers", "A stolen key", "Check its state")
    left = [line for line in commands() if not any(line in commands(title) for title in tested)]
    assert left == [
        "/opt/tailbone/bin/pip install .",
        "/opt/tailbone/bin/tailbone config check /etc/tailbone/tailbone.toml",
        "systemctl restart tailbone",
    ]
    by_hand = [line.split()[0] for line in commands("A stolen key")[3:]]
    assert by_hand == ["aws", "jq", "aws"]
