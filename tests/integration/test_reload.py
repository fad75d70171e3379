"""SIGHUP: a running server rereads its settings file."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.servers import Server
    from harness.tailnet import Caller

DONE = "settings reloaded"
RESTART = "changed settings need a restart"
FAILED = "settings not reloaded: the previous ones stay in effect"


class Reloaded:
    """A server with a settings file."""

    def __init__(self, start: Callable[..., Server], file: Path, settings: str, **variables: str) -> None:
        self.file = file
        file.write_text(settings)
        self.server = start("--config", str(file), **variables)

    def reload(self, settings: str, event: str = DONE) -> dict[str, Any]:
        """Replace the settings, and return the line about the reload."""
        before = len(self.server.events(event))
        self.file.write_text(settings)
        self.server.program.send(signal.SIGHUP)
        until(lambda: len(self.server.events(event)) > before, event)
        return self.server.events(event)[-1]


@pytest.fixture
def reloaded(server: Callable[..., Server], tmp_path: Path) -> Callable[..., Reloaded]:
    """Start a server with a settings file."""
    return lambda settings="", **variables: Reloaded(
        server, tmp_path / "settings.toml", settings, **variables
    )


def test_settings_change_while_the_server_runs(
    reloaded: Callable[..., Reloaded], caller: Callable[..., Caller]
) -> None:
    """Audiences, expiry, allowed hosts and deny list count from the next request on."""
    running = reloaded()
    route, denied = caller().to(running.server.name), caller("tag:ci").to(running.server.name)
    other = {"Host": "other.example"}
    assert route.issue("?audience=service").status == 403
    assert (denied.issue().status, route.issue(headers=other).status) == (200, 421)
    line = running.reload(
        '[issuer]\naudiences = ["service"]\ndeny = ["tag:ci"]\n[keys]\nexpiry = "60s"\n'
        '[server]\nallowedHosts = ["other.example"]\n'
    )
    assert line["changed"] == [
        "server.allowedHosts:  -> other.example",
        "keys.expiry: 20m -> 1m",
        "issuer.audiences:  -> service",
        "issuer.deny:  -> tag:ci",
    ]
    issued = route.issue("?audience=service", headers=other)
    assert lifetime(issued.json["token"]) == 60
    assert denied.issue().json["error"] == "denied"
    assert route.issue("?ttl=10m").status == 400
    running.reload('[keys]\nexpiry = "1h"\n')
    assert (denied.issue().status, route.issue(headers=other).status) == (200, 421)
    until(lambda: lifetime(route.issue().json["token"]) == 3600, "tokens of an hour")


def lifetime(token: str) -> int:
    """Return for how many seconds from its issue a token is valid; keys.backdate is 5 s."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return int(claims["exp"] - claims["iat"] - 5)


def test_each_request_is_answered_by_old_or_new_settings(
    reloaded: Callable[..., Reloaded], caller: Callable[..., Caller]
) -> None:
    """Audience and lifetime always belong together, while requests and reloads go on."""
    settings = {
        "a": '[issuer]\naudiences = ["a"]\n[keys]\nexpiry = "1h"\n',
        "b": '[issuer]\naudiences = ["b"]\n[keys]\nexpiry = "1m"\n',
    }
    running = reloaded(settings["a"])
    route = caller().to(running.server.name)
    seen = set()
    for number in range(20):
        running.file.write_text(settings["ba"[number % 2]])
        running.server.program.send(signal.SIGHUP)
        for audience in "abab":
            answer = route.issue(f"?audience={audience}")
            what = lifetime(answer.json["token"]) if answer.status == 200 else answer.json["error"]
            seen.add((audience, what))
    assert seen == {(audience, "audience_not_allowed") for audience in "ab"} | {("a", 3600), ("b", 60)}


def test_a_bad_file(reloaded: Callable[..., Reloaded], caller: Callable[..., Caller]) -> None:
    """The last good settings stay in effect, and one ERROR line says why."""
    running = reloaded('[issuer]\naudiences = ["service"]\n')
    route = caller().to(running.server.name)
    line = running.reload('[issuer]\naudiences = ["other"]\n[keys]\nexpiry = "5"\n', FAILED)
    assert line["level"] == "error"
    assert line["error"].startswith(f'keys.expiry ({running.file}): "5" has a number without a unit')
    assert route.issue("?audience=service").status == 200
    assert running.server.events(DONE) == []
    assert running.server.program.stop() == 0


def test_what_needs_a_restart(reloaded: Callable[..., Reloaded]) -> None:
    """A warning names it, and nothing else happens. A variable still wins over the file."""
    running = reloaded(TB_KEYS_EXPIRY="10m")
    changed = running.reload('[server]\nport = 81\n[keys]\nexpiry = "1m"\n')["changed"]
    [warning] = until(lambda: running.server.events(RESTART), "a warning")
    assert (changed, warning["level"], warning["settings"]) == ([], "warn", ["server.port"])


def test_the_log_level(reloaded: Callable[..., Reloaded], caller: Callable[..., Caller]) -> None:
    """Lines of lower levels disappear and appear again."""
    running = reloaded()
    route = caller().to(running.server.name)
    running.reload('[log]\nlevel = "warn"\n[server]\nport = 81\n', RESTART)
    assert route.get("/nowhere").status == 404
    running.reload('[log]\nlevel = "info"\n')
    assert route.get("/nowhere").status == 404
    refused = until(lambda: running.server.events("request refused"), "a line")
    assert len(refused) == 1


def test_a_hangup_before_it_serves(server: Callable[..., Server], tmp_path: Path) -> None:
    """It does not end the start; the settings are reread once the server has started."""
    file = tmp_path / "settings.toml"
    file.write_text("")
    started = server("--config", str(file), TB_LOG_LEVEL="debug", ready=False)
    until(lambda: started.program.out, "its first line")
    started.program.send(signal.SIGHUP)
    started.wait_until_serving()
    until(lambda: started.events(DONE), "the reload")
    assert started.program.stop() == 0
    assert json.loads(started.program.out[-1])["event"] == "stopping"
