"""The audit file of a server: every token, admin call and key change has its line."""

from __future__ import annotations

import json
import re
import resource
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from harness.programs import TAILBONE, Program, run
from harness.tailnet import EVERYTHING
from harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.servers import Server
    from harness.tailnet import Caller, Route, Tailnet

PAGE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
TOKEN_RULE = {"audiences": ["service"], "groups": ["ops"]}


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of an audit file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def jti(token: str) -> str:
    """Return the id of a token."""
    return str(jwt.decode(token, options={"verify_signature": False})["jti"])


def keys(tailbone: Callable[..., Program], route: Route, *command: str) -> Program:
    """Run a keys command against an admin port."""
    host, _, port = route.address.rpartition(":")
    return tailbone("keys", *command, "-o", "json", "--host", host, "--port", port)


def documented() -> set[str]:
    """Return the members in the page's table."""
    [table] = re.findall(r"\| member \|.*?\n\n", PAGE, re.DOTALL)
    cells = [row.split("|")[1] for row in table.strip().splitlines()[2:]]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.fixture
def audited(server: Callable[..., Server], tmp_path: Path) -> Callable[..., tuple[Server, Path]]:
    """Start a server with an audit file."""
    path = tmp_path / "audit"
    return lambda **variables: (server("--audit-file", str(path), **variables), path)


def test_what_has_a_line(
    audited: Callable[..., tuple[Server, Path]],
    caller: Callable[..., Caller],
    tailbone: Callable[..., Program],
    tailnet: Tailnet,
) -> None:
    """Tokens issued and refused, admin calls and key changes, with documented members and without a token."""
    started, path = audited(TB_ISSUER_DENY="tag:ci", TB_KEYS_ACTIVATEAFTER="0s", TB_KEYS_ALGORITHM="ES256")
    tailnet.grant({**EVERYTHING, "app": {"tailbone.dev/cap/token": [TOKEN_RULE]}})
    try:
        node, denied = caller(), caller("tag:ci")
        route, admin = node.to(started.name), node.to(started.name, 50051)
        until(lambda: route.issue("?audience=service").status == 200, "the grant")
        token = route.issue("?audience=service").json["token"]
        plain = route.issue().json["token"]
        assert denied.to(started.name).issue().status == 403
        assert [route.issue("?audience=other").status for _ in range(3)] == [403] * 3
        assert route.issue("?audience=other&dry_run=true", headers={"Host": started.name}).status == 403
        assert route.issue(headers={"Host": "evil.example"}).status == 421
        [made] = json.loads(keys(tailbone, admin, "generate").out[0])
        kid = made["key"]["key_id"]
        assert keys(tailbone, admin, "remove", kid, "--yes").process.returncode == 0
        assert keys(tailbone, admin, "remove", "tb-none", "--yes").process.returncode == 1
        until(lambda: any("count" in line for line in lines(path)), "the count of refusals")
    finally:
        tailnet.grant(EVERYTHING)
    found = lines(path)
    by_event = {line["event"]: line for line in found}

    issued = {line["jti"]: line for line in found if line["event"] == "token issued"}
    with_rule, without = issued[jti(token)], issued[jti(plain)]
    assert (with_rule["outcome"], with_rule["aud"], with_rule["rules"]) == ("ok", "service", [TOKEN_RULE])
    assert (without["aud"], "rules" in without) == (None, False)
    assert with_rule["address"].rpartition(":")[0].strip("[]") in node.addresses
    assert with_rule["node"] == node.name
    assert with_rule["kid"] == jwt.get_unverified_header(token)["kid"]

    refused = [line for line in found if line["event"] == "token refused"]
    assert {line["outcome"] for line in refused} == {"denied", "audience_not_allowed", "wrong_host"}
    total = sum(line.get("count", 1) for line in refused if line["outcome"] == "audience_not_allowed")
    assert total == 4
    [denial] = [line for line in refused if line["outcome"] == "denied"]
    assert (denial["node"], denial["sub"].startswith("node:")) == (denied.name, True)

    calls = [(line["method"], line["outcome"]) for line in found if line["event"].startswith("admin call")]
    assert calls == [
        ("GenerateNewKeys", "begins"),
        ("GenerateNewKeys", "ok"),
        ("RemoveKey", "begins"),
        ("RemoveKey", "ok"),
        ("RemoveKey", "begins"),
        ("RemoveKey", "unknown_key"),
    ]
    assert by_event["key is generated"]["kid"] == kid
    assert "signing key changed" in by_event
    assert by_event["key is removed"]["kid"] == kid
    assert {name for line in found for name in line} <= documented()
    text = path.read_text()
    assert "eyJ" not in text
    assert token not in text
    # The log has no second line of a token.
    assert started.events("token issued") == []
    assert {line["code"] for line in started.events("request refused")} >= {"denied", "wrong_host"}


def test_without_its_line_no_token_leaves(
    audited: Callable[..., tuple[Server, Path]],
    caller: Callable[..., Caller],
    tailbone: Callable[..., Program],
) -> None:
    """When the file cannot grow, tokens and key changes are refused until it can; the log goes on."""
    started, path = audited()
    node = caller()
    route, admin = node.to(started.name), node.to(started.name, 50051)
    first = route.issue().json["token"]
    full = path.stat().st_size + 20
    resource.prlimit(started.program.pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
    answer = route.issue()
    assert (answer.status, answer.json["error"]) == (503, "log_unavailable")
    assert route.get("/_readyz").json["reasons"] == ["log_unavailable"]
    refused = keys(tailbone, admin, "generate")
    assert refused.process.returncode == 1
    assert "changes nothing" in refused.output()
    resource.prlimit(started.program.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert route.get("/_readyz").status == 200
    second = route.issue().json["token"]
    written = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    assert [line["jti"] for line in written if line["event"] == "token issued"] == [jti(first), jti(second)]
    assert started.events("request refused")[0]["code"] == "log_unavailable"


def test_rotation_loses_no_line(
    audited: Callable[..., tuple[Server, Path]], caller: Callable[..., Caller]
) -> None:
    """While callers get tokens, each has its line in one of the files, and each line is whole."""
    started, path = audited(TB_KEYS_ALGORITHM="ES256")
    route = caller().to(started.name)
    got: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            got.append(jti(route.issue().json["token"]))

    asking = threading.Thread(target=ask)
    asking.start()
    files = [path]
    try:
        for number in range(1, 6):
            before = len(got)
            until(lambda before=before: len(got) > before + 2, "further tokens")
            files.append(path.rename(path.with_name(f"audit.{number}")))
            started.program.send(signal.SIGHUP)
            until(path.exists, "the new file")
    finally:
        done.set()
        asking.join()
    in_files = [[line["jti"] for line in lines(file) if line["event"] == "token issued"] for file in files]
    assert sorted(jtis for file in in_files for jtis in file) == sorted(got)
    assert sum(bool(file) for file in in_files) > 3
    until(lambda: len(started.events("audit file reopened")) == 5, "a line for each")


def test_a_file_that_is_refused(server: Callable[..., Server], tmp_path: Path) -> None:
    """The server ends at once, with exit code 2 and one line."""
    link = tmp_path / "link"
    link.symlink_to("audit")
    program = server("--audit-file", str(link), ready=False).program
    assert program.wait() == 2
    assert program.err == [f"tailbone: log.auditFile (flag --audit-file): {link} is a symbolic link"]
    assert not (tmp_path / "audit").exists()


def test_housekeeping_writes_to_it(
    audited: Callable[..., tuple[Server, Path]], environment: dict[str, str], tmp_path: Path
) -> None:
    """A key whose files it moves has a line, beside those of the server."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    started, path = audited(TB_KEYS_BUCKET=bucket.as_uri())
    published = bucket / ".well-known" / "jwks.json"
    until(published.exists, "the JWKS")
    until(lambda: started.events("signing key changed"), "the key signs")
    assert started.program.stop() == 0
    published.write_text('{"keys":[]}')
    flags = ("--dir", str(started.folder / "keys"), "--bucket", bucket.as_uri(), "--audit-file", str(path))
    done = run([*TAILBONE, "server", "housekeeping", "--force", *flags], env=environment)
    assert done.process.returncode == 0, done.output()
    assert [line["event"] for line in lines(path)][-1] == "key's files are moved to removed/"
