"""A server with broken or shared key folders and JWKS, and housekeeping while it runs."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from harness import s3
from harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.programs import Program
    from harness.servers import Server
    from harness.tailnet import Caller, Route

JWKS = ".well-known/jwks.json"


def kid_of(route: Route) -> str:
    """Return the kid of the current signing key."""
    return str(jwt.get_unverified_header(route.issue().json["token"])["kid"])


def becomes_ready(route: Route, timeout_s: float = 15.0) -> None:
    """Wait until /_readyz answers 200."""
    until(lambda: route.get("/_readyz").status == 200, "ready", timeout_s=timeout_s)


# --- a store that is broken at start


def break_by_file(bucket: Path) -> Callable[[], None]:
    """Put a file in place of the folder."""
    bucket.write_text("in the way")
    return bucket.unlink


def break_by_foreign_document(bucket: Path) -> Callable[[], None]:
    """Put another document in place of the JWKS."""
    file = bucket / JWKS
    file.parent.mkdir(parents=True)
    file.write_text("<html>not a JWKS</html>")
    return file.unlink


@pytest.mark.parametrize("breaking", [break_by_file, break_by_foreign_document])
def test_store_is_broken_at_start(
    server: Callable[..., Server],
    caller: Callable[..., Caller],
    tmp_path: Path,
    breaking: Callable[[Path], Callable[[], None]],
) -> None:
    """The server starts, with 503 for tokens and the reasons in /_readyz, and recovers with the store."""
    bucket = tmp_path / "bucket"
    repair = breaking(bucket)
    route = caller().to(server(TB_KEYS_BUCKET=bucket.as_uri()).name)
    refused, ready = route.issue(), route.get("/_readyz")
    assert (refused.status, refused.json["error"]) == (503, "no_signing_key")
    assert (ready.status, ready.json["error"]) == (503, "not_ready")
    until(lambda: "key_not_published" in route.get("/_readyz").json["reasons"], "a reason")
    assert route.get("/_healthz").status == 200
    repair()
    becomes_ready(route)
    assert route.issue().status == 200
    assert [key["kid"] for key in json.loads((bucket / JWKS).read_text())["keys"]] == [kid_of(route)]


def test_s3_is_away_at_start(
    server: Callable[..., Server], caller: Callable[..., Caller], tmp_path: Path
) -> None:
    """An unreachable S3 server does not delay the start; tokens are issued once it is reachable."""
    with s3.moto(tmp_path) as endpoint:
        s3.make_bucket(endpoint)
        port = endpoint.rpartition(":")[2]
        environment = s3.environment(endpoint)
        moto_pid = _listener(int(port))
        os.kill(moto_pid, signal.SIGSTOP)
        try:
            route = caller().to(server(TB_KEYS_BUCKET=s3.BUCKET, **environment).name)
            assert route.issue().status == 503
            assert route.get("/_readyz").status == 503
        finally:
            os.kill(moto_pid, signal.SIGCONT)
        becomes_ready(route, 40)
        kid = kid_of(route)
        stored = s3.client(endpoint).get_object(Bucket=s3.BUCKET, Key=JWKS)
        assert [key["kid"] for key in json.load(stored["Body"])["keys"]] == [kid]


def _listener(port: int) -> int:
    """Return the process that listens on a loopback port."""
    wanted = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()
    inode = next(fields[9] for fields in map(str.split, lines) if fields[1] == wanted and fields[3] == "0A")
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) == f"socket:[{inode}]":
                return int(link.parts[2])
        except OSError:
            continue
    raise AssertionError(f"nobody listens on {port}")


def test_key_folder_that_cannot_be_used(server: Callable[..., Server]) -> None:
    """A key folder that cannot be created ends the start with exit code 1 and one line that names it."""
    program = server("--dir", "/proc/keys", ready=False).program
    assert program.wait() == 1
    [line] = program.err
    assert line.startswith("tailbone: ")
    assert "/proc/keys" in line


def test_private_key_that_everybody_can_read(server: Callable[..., Server]) -> None:
    """It is refused, and the message contains the command that corrects it."""
    first = server(hostname="careless")
    first.program.stop()
    [private] = (first.folder / "keys").glob("*.private.jwk")
    private.chmod(0o644)
    program = server(hostname="careless", ready=False).program
    assert program.wait() == 1
    [line] = program.err
    assert "chmod" in line
    assert str(private) in line


# --- components, and processes that share a folder


def keys(tailbone: Callable[..., Program], route: Route, *command: str) -> Any:
    """Run a keys command against an admin port."""
    host, _, port = route.address.rpartition(":")
    program = tailbone("keys", *command, "-o", "json", "--host", host, "--port", port)
    assert program.process.returncode == 0, program.output()
    return json.loads(program.out[0])


def test_issuer_alone(server: Callable[..., Server], caller: Callable[..., Caller]) -> None:
    """It issues tokens, and does not listen on the admin port."""
    started = server("--components", "issuer")
    node = caller()
    assert node.to(started.name).issue().status == 200
    with pytest.raises(OSError), node.to(started.name, 50051).connect() as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        if connection.recv(1) == b"":
            raise ConnectionResetError


def test_admin_alone(
    server: Callable[..., Server], caller: Callable[..., Caller], tailbone: Callable[..., Program]
) -> None:
    """It manages keys, and does not listen on port 80."""
    started = server(TB_COMPONENTS="admin")
    node = caller()
    admin = node.to(started.name, 50051)
    [first] = keys(tailbone, admin, "list")
    [made] = keys(tailbone, admin, "generate")
    assert [key["key_id"] for key in keys(tailbone, admin, "list")] == [
        first["key_id"],
        made["key"]["key_id"],
    ]
    with pytest.raises(OSError):
        node.to(started.name).get("/_healthz")


def test_issuer_and_admin_apart(
    server: Callable[..., Server],
    caller: Callable[..., Caller],
    tailbone: Callable[..., Program],
    tmp_path: Path,
) -> None:
    """With two processes on one folder, the issuer follows the admin's changes a second later."""
    shared = {"TB_KEYS_DIR": str(tmp_path / "keys"), "TB_KEYS_BUCKET": (tmp_path / "bucket").as_uri()}
    issuer = server("--components", "issuer", **shared)
    admin_server = server("--components", "admin", TB_KEYS_ACTIVATEAFTER="0s", **shared)
    node = caller()
    route, admin = node.to(issuer.name), node.to(admin_server.name, 50051)
    becomes_ready(route)
    old = kid_of(route)
    new = keys(tailbone, admin, "generate")[0]["key"]["key_id"]
    keys(tailbone, admin, "remove", old, "--yes")
    until(lambda: kid_of(route) == new, "the new key signs", timeout_s=5)
    document = json.loads((tmp_path / "bucket" / JWKS).read_text())
    assert [key["kid"] for key in document["keys"]] == [new]
    until(
        lambda: route.get("/.well-known/jwks.json").json == document,
        "the issuer has read the new JWKS",
        timeout_s=5,
    )


# --- housekeeping


def test_housekeeping_beside_a_server(
    server: Callable[..., Server],
    caller: Callable[..., Caller],
    tailbone: Callable[..., Program],
    tmp_path: Path,
) -> None:
    """Keys that are no longer published are moved to removed/, but not by a dry run; the server runs on."""
    bucket = tmp_path / "bucket"
    started = server(TB_KEYS_BUCKET=bucket.as_uri())
    node = caller()
    route, admin = node.to(started.name), node.to(started.name, 50051)
    becomes_ready(route)
    old = kid_of(route)
    new = keys(tailbone, admin, "generate")[0]["key"]["key_id"]
    document = json.loads((bucket / JWKS).read_text())
    document["keys"] = [key for key in document["keys"] if key["kid"] == new]
    (bucket / JWKS).write_text(json.dumps(document))
    flags = ("--dir", str(started.folder / "keys"), "--bucket", bucket.as_uri(), "-o", "json")
    dry = tailbone("server", "housekeeping", *flags, "--dry-run")
    assert json.loads(dry.out[0]) == {
        "moved": [old],
        "kept": [new],
        "finished": [],
        "faulty": [],
        "dry_run": True,
    }
    assert (started.folder / "keys" / f"{old}.private.jwk").exists()
    done = tailbone("server", "housekeeping", *flags)
    assert json.loads(done.out[0]) == {
        "moved": [old],
        "kept": [new],
        "finished": [],
        "faulty": [],
        "dry_run": False,
    }
    assert (started.folder / "keys" / "removed" / f"{old}.private.jwk").exists()
    until(lambda: kid_of(route) == new, "the other key signs", timeout_s=10)


@pytest.mark.parametrize("content", [None, '{"keys": []}', "cut o"])
def test_housekeeping_refuses(
    server: Callable[..., Server], tailbone: Callable[..., Program], tmp_path: Path, content: str | None
) -> None:
    """If the JWKS is missing, empty or unreadable, it moves nothing and says why, with exit code 1."""
    bucket = tmp_path / "bucket"
    started = server(TB_KEYS_BUCKET=bucket.as_uri())
    until((bucket / JWKS).exists, "the JWKS")
    started.program.stop()
    if content is None:
        (bucket / JWKS).unlink()
    else:
        (bucket / JWKS).write_text(content)
    flags = ("--dir", str(started.folder / "keys"), "--bucket", bucket.as_uri())
    program = tailbone("server", "housekeeping", *flags)
    assert program.process.returncode == 1
    assert program.err[-1].startswith("tailbone: ")
    assert program.out == []
    assert len(list((started.folder / "keys").glob("*.private.jwk"))) == 1
