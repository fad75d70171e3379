"""The admin API and the commands over real keys: a KeyLifecycle on a folder and a directory store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tailbone.admin._proto import admin_pb2 as pb
from tailbone.admin._proto import admin_pb2_grpc
from tailbone.jwks.directory import DirectoryStore
from tailbone.keys.folder import KeyFolder
from tailbone.keys.lifecycle import KeyLifecycle, KeySettings
from tailbone.process.log import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from conftest import Running

JWKS = "jwks.json"


class Admin:
    """A server over real keys, its folder, and what it has published."""

    def __init__(self, folder: Path, bucket: Path) -> None:
        self.folder = folder
        self.bucket = bucket
        self.run: Running
        self.keys: KeyLifecycle

    @property
    def published(self) -> list[str]:
        document = json.loads((self.bucket / JWKS).read_bytes())
        return [key["kid"] for key in document["keys"]]

    async def call(self, method: str, request: Any) -> Any:
        async with grpc.aio.insecure_channel(self.run.address) as channel:
            return await getattr(admin_pb2_grpc.AdminServiceStub(channel), method)(request)

    async def refusal(self, method: str, request: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(method, request)
        return caught.value.code(), caught.value.details() or ""


@pytest.fixture
async def admin(tmp_path: Path, start_admin: Callable[..., Any]) -> AsyncIterator[Admin]:
    """A server that has made and published its first key."""
    started = Admin(tmp_path / "keys", tmp_path / "bucket")
    async with KeyLifecycle(
        folder=KeyFolder(started.folder),
        store=DirectoryStore(started.bucket),
        path=JWKS,
        settings=KeySettings(),
        log=get_logger(),
    ) as started.keys:
        await started.keys.sync()
        async with start_admin(
            lifecycle=started.keys,
            signing_key_id=lambda: started.keys.ring.require().kid,
            readiness=started.keys.reasons,
            notes=started.keys.notes,
        ) as started.run:
            yield started


async def test_generate_publishes_and_waits(admin: Admin) -> None:
    """A generated key is in the JWKS when the answer comes, and signs when caches have run out."""
    (first,) = admin.published
    made = (await admin.call("GenerateNewKeys", pb.GenerateNewKeysRequest())).key
    assert admin.published == [first, made.key_id]
    assert (made.algorithm, made.state, made.next_change) == ("RS256", "published", "signs")
    assert 290 <= made.next_change_at - made.created_at <= 310


async def test_size_and_algorithm_arrive(admin: Admin) -> None:
    """A size asked for is the size of the modulus, and ES256 gives a key on a curve."""
    big = (await admin.call("GenerateNewKeys", pb.GenerateNewKeysRequest(size=3072))).key
    curved = (await admin.call("GenerateNewKeys", pb.GenerateNewKeysRequest(algorithm="ES256"))).key
    document = json.loads((admin.bucket / JWKS).read_bytes())
    by_kid = {key["kid"]: key for key in document["keys"]}
    assert len(by_kid[big.key_id]["n"]) == 512
    assert (curved.algorithm, by_kid[curved.key_id]["crv"]) == ("ES256", "P-256")


@pytest.mark.parametrize(
    "request_", [{"size": 1024}, {"size": -1}, {"algorithm": "HS256"}, {"algorithm": "../../etc"}], ids=str
)
async def test_bad_sizes_and_algorithms(admin: Admin, request_: dict[str, Any]) -> None:
    """Any other size or algorithm is INVALID_ARGUMENT, and no key is made."""
    before = admin.published
    status, _ = await admin.refusal("GenerateNewKeys", pb.GenerateNewKeysRequest(**request_))
    assert (status, admin.published) == (grpc.StatusCode.INVALID_ARGUMENT, before)


async def test_remove_of_the_signing_key(admin: Admin) -> None:
    """When the signing key is removed the waiting one signs at once, and its files are gone."""
    (first,) = admin.published
    made = (await admin.call("GenerateNewKeys", pb.GenerateNewKeysRequest())).key
    left = (await admin.call("RemoveKey", pb.RemoveKeyRequest(key_id=first))).keys
    assert [(key.key_id, key.state) for key in left] == [(made.key_id, "active")]
    assert admin.published == [made.key_id]
    assert list(admin.folder.glob(f"{first}.*")) == []
    assert (await admin.call("GetStatus", pb.GetStatusRequest())).signing_key_id == made.key_id


@pytest.mark.parametrize("kid", ["tb-1", "../keys", "/etc/passwd", "tb-1\x00", "x" * 10_000], ids=repr)
async def test_unknown_kids(admin: Admin, kid: str) -> None:
    """A kid from the wire that no key has is NOT_FOUND, whatever path it looks like, and changes nothing."""
    files = sorted(path.name for path in admin.folder.iterdir())
    status, _ = await admin.refusal("RemoveKey", pb.RemoveKeyRequest(key_id=kid))
    assert status is grpc.StatusCode.NOT_FOUND
    assert sorted(path.name for path in admin.folder.iterdir()) == files


async def test_foreign_keys_are_listed_and_left_alone(admin: Admin) -> None:
    """A key in the JWKS that is not in the folder is listed as foreign, whatever its kid is."""
    path = admin.bucket / JWKS
    document = json.loads(path.read_bytes())
    document["keys"].append(document["keys"][0] | {"kid": "other-99999999999999999999", "n": "AQAB" * 86})
    path.write_text(json.dumps(document))
    listed = (await admin.call("ListKeys", pb.ListKeysRequest())).keys
    foreign = [key for key in listed if key.foreign]
    assert [(key.key_id, key.created_at) for key in foreign] == [("other-99999999999999999999", 0)]


async def test_a_document_that_is_none(admin: Admin) -> None:
    """A JWKS that cannot be parsed is FAILED_PRECONDITION for a change, and stays as it is."""
    (admin.bucket / JWKS).write_text("<html>")
    status, _ = await admin.refusal("GenerateNewKeys", pb.GenerateNewKeysRequest())
    assert status is grpc.StatusCode.FAILED_PRECONDITION
    assert (admin.bucket / JWKS).read_text() == "<html>"


async def test_status(admin: Admin) -> None:
    """The status of a server that signs is ready, with nothing to say against it."""
    status = await admin.call("GetStatus", pb.GetStatusRequest())
    assert (status.ready, list(status.reasons), [status.signing_key_id]) == (True, [], admin.published)


async def test_local_list_asks_no_server(
    admin: Admin, tailbone: Callable[..., Any], closed_port: int
) -> None:
    """With --local the keys of the folder are listed, and no server is asked."""
    ended = await tailbone(
        "keys", "list", "--local", "--dir", admin.folder, "--port", closed_port, "-o", "json"
    )
    (key,) = json.loads(ended.out)
    assert (key["key_id"], key["algorithm"], key["state"]) == (admin.published[0], "RS256", "active")


async def test_local_list_takes_keys_dir(admin: Admin, tailbone: Callable[..., Any]) -> None:
    """The folder is that of keys.dir, from the variable, too."""
    ended = await tailbone("keys", "ls", "--local", TB_KEYS_DIR=str(admin.folder))
    assert (ended.status, admin.published[0] in ended.out) == (0, True)


async def test_local_list_names_what_is_broken(admin: Admin, tailbone: Callable[..., Any]) -> None:
    """A truncated private half is listed, with what is wrong, beside the good keys."""
    (admin.folder / "tb-1795518230.private.jwk").write_text('{"kty": "RSA"')
    (admin.folder / "tb-1795518230.private.jwk").chmod(0o600)
    ended = await tailbone("keys", "list", "--local", "--dir", admin.folder, "-o", "json")
    by_kid = {key["key_id"]: key for key in json.loads(ended.out)}
    assert by_kid["tb-1795518230"]["state"] == "faulty"
    assert "private half" in by_kid["tb-1795518230"]["fault"]
    assert "fault" not in by_kid[admin.published[0]]


async def test_local_list_without_a_folder(tailbone: Callable[..., Any], tmp_path: Path) -> None:
    """A folder that does not exist is an error in one line, not a list of no keys."""
    ended = await tailbone("keys", "list", "--local", "--dir", tmp_path / "nowhere")
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert "nowhere" in ended.err
