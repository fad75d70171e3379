"""A server and its key folder and JWKS: broken ones, shared ones, and housekeeping beside it."""

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
    from harness.tailnet import Caller, Way

JWKS = ".well-known/jwks.json"


def kid_of(way: Way) -> str:
    """The key that signs now."""
    return str(jwt.get_unverified_header(way.issue().json["token"])["kid"])


def becomes_ready(way: Way, timeout_s: float = 15.0) -> None:
    """Wait until /_readyz says so."""
    until(lambda: way.get("/_readyz").status == 200, "ready", timeout_s=timeout_s)


# --- a store that is broken at start


def break_by_file(bucket: Path) -> Callable[[], None]:
    """The folder's place is taken by a file."""
    bucket.write_text("in the way")
    return bucket.unlink


def break_by_foreign_document(bucket: Path) -> Callable[[], None]:
    """Where the JWKS belongs lies something else."""
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
    """The server serves: 503 for tokens, /_readyz with the reasons; mended, it recovers by itself."""
    bucket = tmp_path / "bucket"
    mend = breaking(bucket)
    way = caller().to(server(TB_KEYS_BUCKET=bucket.as_uri()).name)
    refused, ready = way.issue(), way.get("/_readyz")
    assert (refused.status, refused.json["error"]) == (503, "no_signing_key")
    assert (ready.status, ready.json["error"]) == (503, "not_ready")
    until(lambda: any("jwks: " in reason for reason in way.get("/_readyz").json["reasons"]), "a reason")
    assert way.get("/_healthz").status == 200
    mend()
    becomes_ready(way)
    assert way.issue().status == 200
    assert [key["kid"] for key in json.loads((bucket / JWKS).read_text())["keys"]] == [kid_of(way)]


def test_s3_is_away_at_start(
    server: Callable[..., Server], caller: Callable[..., Caller], tmp_path: Path
) -> None:
    """An S3 server that nobody reaches delays no start; when it comes, tokens do."""
    with s3.moto(tmp_path) as endpoint:
        s3.make_bucket(endpoint)
        port = endpoint.rpartition(":")[2]
        environment = s3.environment(endpoint)
        moto_pid = _listener(int(port))
        os.kill(moto_pid, signal.SIGSTOP)
        try:
            way = caller().to(server(TB_KEYS_BUCKET=s3.BUCKET, **environment).name)
            assert way.issue().status == 503
            assert way.get("/_readyz").status == 503
        finally:
            os.kill(moto_pid, signal.SIGCONT)
        becomes_ready(way, 40)
        kid = kid_of(way)
        stored = s3.client(endpoint).get_object(Bucket=s3.BUCKET, Key=JWKS)
        assert [key["kid"] for key in json.load(stored["Body"])["keys"]] == [kid]


def _listener(port: int) -> int:
    """The process that listens on a loopback port."""
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
    """A key folder that cannot be made ends the start with exit code 1 and one line that names it."""
    program = server("--dir", "/proc/keys", ready=False).program
    assert program.wait() == 1
    [line] = program.err
    assert line.startswith("tailbone: ")
    assert "/proc/keys" in line


def test_private_key_that_everybody_can_read(server: Callable[..., Server]) -> None:
    """It is refused, with the command that mends it."""
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


def keys(tailbone: Callable[..., Program], way: Way, *command: str) -> Any:
    """A keys command against an admin port."""
    host, _, port = way.address.rpartition(":")
    program = tailbone("keys", *command, "-o", "json", "--host", host, "--port", port)
    assert program.process.returncode == 0, program.output()
    return json.loads(program.out[0])


def test_issuer_alone(server: Callable[..., Server], caller: Callable[..., Caller]) -> None:
    """It gives tokens, and nobody answers on the admin port."""
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
    """It manages keys, and nobody answers on port 80."""
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
    """Two processes on one folder: what the admin does, the issuer does a second later."""
    shared = {"TB_KEYS_DIR": str(tmp_path / "keys"), "TB_KEYS_BUCKET": (tmp_path / "bucket").as_uri()}
    issuer = server("--components", "issuer", **shared)
    admin_server = server("--components", "admin", TB_KEYS_ACTIVATEAFTER="0s", **shared)
    node = caller()
    way, admin = node.to(issuer.name), node.to(admin_server.name, 50051)
    becomes_ready(way)
    old = kid_of(way)
    new = keys(tailbone, admin, "generate")[0]["key"]["key_id"]
    keys(tailbone, admin, "remove", old, "--yes")
    until(lambda: kid_of(way) == new, "the new key signs", timeout_s=5)
    document = json.loads((tmp_path / "bucket" / JWKS).read_text())
    assert [key["kid"] for key in document["keys"]] == [new]
    until(
        lambda: way.get("/.well-known/jwks.json").json == document,
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
    """Keys that are no longer published go to removed/; a dry run only says so; the server goes on."""
    bucket = tmp_path / "bucket"
    started = server(TB_KEYS_BUCKET=bucket.as_uri())
    node = caller()
    way, admin = node.to(started.name), node.to(started.name, 50051)
    becomes_ready(way)
    old = kid_of(way)
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
    until(lambda: kid_of(way) == new, "the other key signs", timeout_s=10)


@pytest.mark.parametrize("content", [None, '{"keys": []}', "cut o"])
def test_housekeeping_refuses(
    server: Callable[..., Server], tailbone: Callable[..., Program], tmp_path: Path, content: str | None
) -> None:
    """With a JWKS that is missing, empty or unreadable it moves nothing, and says why; exit code 1."""
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
