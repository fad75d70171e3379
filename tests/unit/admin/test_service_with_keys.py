"""The admin API over real keys: a KeyLifecycle on a folder and a directory store."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from harness.admin import JWKS

from tailbone.admin._proto import admin_pb2 as pb
from tailbone.keys.signing_key import SigningKey

if TYPE_CHECKING:
    from harness.admin import Admin


async def test_generate_publishes_and_waits(admin: Admin) -> None:
    """A generated key is in the JWKS when the answer comes, and signs when caches have expired."""
    (first,) = admin.published
    made = (await admin.call("GenerateNewKeys", pb.GenerateNewKeysRequest())).key
    assert admin.published == [first, made.key_id]
    assert (made.algorithm, made.state, made.next_change) == ("RS256", "published", "signs")
    assert 290 <= made.next_change_at - made.created_at <= 310


async def test_size_and_algorithm_of_a_request(admin: Admin) -> None:
    """A requested size is that of the modulus; ES256 gives a key on P-256."""
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


async def test_one_key_is_generated_at_a_time_and_removals_go_on(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile a second GenerateNewKeys is RESOURCE_EXHAUSTED, and RemoveKey is carried out."""
    (first,) = admin.published
    waiting = (await admin.call("GenerateNewKeys", pb.GenerateNewKeysRequest())).key.key_id
    begun, go = threading.Event(), threading.Event()
    generate = SigningKey.generate

    def slow(*args: Any, **options: Any) -> SigningKey:
        begun.set()
        assert go.wait(10)
        return generate(*args, **options)

    monkeypatch.setattr(SigningKey, "generate", slow)
    generating = asyncio.ensure_future(admin.call("GenerateNewKeys", pb.GenerateNewKeysRequest()))
    assert await asyncio.to_thread(begun.wait, 10)
    status, _ = await admin.refusal("GenerateNewKeys", pb.GenerateNewKeysRequest())
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
    await admin.call("RemoveKey", pb.RemoveKeyRequest(key_id=waiting))
    assert (admin.published, generating.done()) == ([first], False)
    go.set()
    made = (await generating).key.key_id
    assert admin.published == [first, made]


async def test_remove_of_the_signing_key(admin: Admin) -> None:
    """When the signing key is removed, the waiting one signs at once; the files of the first are gone."""
    (first,) = admin.published
    made = (await admin.call("GenerateNewKeys", pb.GenerateNewKeysRequest())).key
    left = (await admin.call("RemoveKey", pb.RemoveKeyRequest(key_id=first))).keys
    assert [(key.key_id, key.state) for key in left] == [(made.key_id, "active")]
    assert admin.published == [made.key_id]
    assert list(admin.folder.glob(f"{first}.*")) == []
    assert (await admin.call("GetStatus", pb.GetStatusRequest())).signing_key_id == made.key_id


@pytest.mark.parametrize("kid", ["tb-1", "../keys", "/etc/passwd", "tb-1\x00", "x" * 10_000], ids=repr)
async def test_unknown_kids(admin: Admin, kid: str) -> None:
    """An unknown kid is NOT_FOUND and changes no file, even if it looks like a path."""
    files = sorted(path.name for path in admin.folder.iterdir())
    status, _ = await admin.refusal("RemoveKey", pb.RemoveKeyRequest(key_id=kid))
    assert status is grpc.StatusCode.NOT_FOUND
    assert sorted(path.name for path in admin.folder.iterdir()) == files


async def test_foreign_keys_are_listed_as_such(admin: Admin) -> None:
    """A key in the JWKS that is not in the folder is foreign, whatever its kid is."""
    path = admin.bucket / JWKS
    document = json.loads(path.read_bytes())
    document["keys"].append(document["keys"][0] | {"kid": "other-99999999999999999999", "n": "AQAB" * 86})
    path.write_text(json.dumps(document))
    listed = (await admin.call("ListKeys", pb.ListKeysRequest())).keys
    foreign = [key for key in listed if key.foreign]
    assert [(key.key_id, key.created_at) for key in foreign] == [("other-99999999999999999999", 0)]


async def test_a_malformed_jwks_stays_as_it_is(admin: Admin) -> None:
    """A change of a JWKS that cannot be parsed is FAILED_PRECONDITION."""
    (admin.bucket / JWKS).write_text("<html>")
    status, _ = await admin.refusal("GenerateNewKeys", pb.GenerateNewKeysRequest())
    assert status is grpc.StatusCode.FAILED_PRECONDITION
    assert (admin.bucket / JWKS).read_text() == "<html>"


async def test_status(admin: Admin) -> None:
    """A server that signs is ready, and has no reasons against it."""
    status = await admin.call("GetStatus", pb.GetStatusRequest())
    assert (status.ready, list(status.reasons), [status.signing_key_id]) == (True, [], admin.published)
