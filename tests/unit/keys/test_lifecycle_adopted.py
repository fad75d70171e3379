"""Folders and documents that the Go program, or a hand, has written."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import jwt
import msgspec
import pytest
from harness.keys import EC, START, FakeTime, Server, document, write_document
from harness.waiting import until_async

from tailbone.errors import StoreError
from tailbone.keys.signing_key import SigningKey

if TYPE_CHECKING:
    from collections.abc import Callable

GO = Path(__file__).parent / "go"
GO_KID = "tb-1795518230"


def take_over(folder: Path) -> None:
    """A folder as the Go program leaves it."""
    folder.mkdir(mode=0o755)
    for half, mode in (("private", 0o600), ("public", 0o644)):
        path = folder / f"{GO_KID}.{half}.jwk"
        shutil.copyfile(GO / path.name, path)
        path.chmod(mode)


def put_by_hand(folder: Path, kid: str, created_at: float = START) -> SigningKey:
    """A pair as somebody would copy it there, private half first."""
    key = SigningKey.generate(kid, algorithm="ES256", size=0, created_at=created_at)
    private = folder / f"{kid}.private.jwk"
    private.write_bytes(key.private_jwk())
    private.chmod(0o600)
    (folder / f"{kid}.public.jwk").write_text(json.dumps(key.public_jwk()))
    return key


async def test_a_folder_and_a_jwks_of_the_go_program_are_taken_over(
    server: Callable[..., Server], bucket: Path
) -> None:
    """It signs at once with the old kid; the JWKS keeps the key and gets its ``use``."""
    one = server()
    take_over(one.folder)
    write_document(bucket, (GO / "jwks.json").read_bytes())
    before = {path.name: path.read_bytes() for path in one.folder.iterdir()}
    one.time.advance(86_400)
    await one.start()
    assert one.signing == GO_KID
    assert {name: (one.folder / name).read_bytes() for name in before} == before
    (published,) = document(bucket)["keys"]
    assert published == {**json.loads((GO / "jwks.json").read_bytes())["keys"][0], "use": "sig"}


async def test_old_tokens_go_on_verifying_after_the_takeover_and_a_rotation(
    server: Callable[..., Server], bucket: Path
) -> None:
    """A token that the Go program signed, against the JWKS as it is later."""
    old = SigningKey.from_jwk((GO / f"{GO_KID}.private.jwk").read_bytes(), fallback_created_at=0)
    token = jwt.encode({"iss": "tailbone"}, old._private, algorithm="RS256", headers={"kid": GO_KID})
    one = server()
    take_over(one.folder)
    write_document(bucket, (GO / "jwks.json").read_bytes())
    await one.start()
    await one.keys.generate()
    await one.pass_time(301)
    assert one.signing != GO_KID
    keys = jwt.PyJWKSet.from_dict(document(bucket))
    assert jwt.decode(token, keys[GO_KID].key, algorithms=["RS256"]) == {"iss": "tailbone"}


async def test_a_pair_made_here_has_the_form_that_the_go_program_reads(server: Callable[..., Server]) -> None:
    """The members of its own files, base64url without padding."""
    one = await server(settings=msgspec.structs.replace(EC, algorithm="RS256")).start()
    made = json.loads((one.folder / f"{one.signing}.private.jwk").read_bytes())
    assert list(made) == list(json.loads((GO / f"{GO_KID}.private.jwk").read_bytes()))
    assert (made["kty"], made["alg"], made["kid"]) == ("RSA", "RS256", one.signing)
    public = json.loads((one.folder / f"{one.signing}.public.jwk").read_bytes())
    assert public.items() >= {member: made[member] for member in ("alg", "e", "kid", "kty", "n")}.items()


async def test_a_go_folder_without_any_jwks_is_published(server: Callable[..., Server]) -> None:
    """A 404 says that nothing was published yet: the keys are, and sign without a wait."""
    one = server()
    take_over(one.folder)
    await one.start()
    assert one.published == [GO_KID]
    assert one.signing == GO_KID


async def test_a_go_key_absent_from_an_existing_jwks_never_signs_and_is_never_published(
    server: Callable[..., Server], bucket: Path
) -> None:
    """The Go program deletes from S3 first and from disk second; a new first key is made."""
    one = server()
    take_over(one.folder)
    write_document(bucket, {"keys": []})
    one.time.advance(60)
    await one.start()
    assert one.signing not in ("", GO_KID)
    assert one.published == [one.signing]
    assert GO_KID in one.private
    await one.pass_time(1000)
    await one.again().start()
    assert GO_KID not in one.published


@pytest.mark.parametrize("first", ["publisher", "follower"])
async def test_a_process_without_a_bucket_brings_no_revoked_key_back(
    server: Callable[..., Server], bucket: Path, tmp_path: Path, time: FakeTime, first: str
) -> None:
    """The newer key of a Go folder is not in the JWKS: whichever process comes first, it is not put there."""
    publisher, follower = server("keys"), Server(tmp_path / "keys", None, time)
    publisher.folder.mkdir()
    kept = put_by_hand(publisher.folder, f"tb-{START - 200:.0f}", START - 200)
    revoked = put_by_hand(publisher.folder, f"tb-{START - 100:.0f}", START - 100)
    write_document(bucket, {"keys": [kept.public_jwk()]})
    assert publisher.store is not None
    publisher.store.fail(StoreError("away"))
    if first == "publisher":
        await publisher.start()
        await follower.start()
    else:
        await follower.start()
        await publisher.start()
    # Without a record of the bucket it cannot know that the keys are published anywhere.
    assert follower.signing == revoked.kid
    publisher.store.recover()
    for one in (publisher, follower, publisher, follower):
        await one.pass_time(301)
    assert publisher.published == [kept.kid]
    assert publisher.signing == follower.signing == kept.kid


async def test_a_go_folder_waits_while_the_jwks_cannot_be_read(server: Callable[..., Server]) -> None:
    """Whether its key is published is unknown: it neither signs nor is replaced."""
    one = server()
    take_over(one.folder)
    assert one.store is not None
    one.store.fail(StoreError("away"))
    await one.start()
    assert one.signing == ""
    assert one.private == [GO_KID]
    one.store.recover()
    await one.keys.sync()
    assert one.signing == GO_KID


async def test_of_several_go_keys_the_newest_signs_and_the_others_stay_published(
    server: Callable[..., Server], bucket: Path
) -> None:
    """As the Go program did."""
    one = server()
    one.folder.mkdir()
    keys = [put_by_hand(one.folder, f"old-prefix-{START - age:.0f}") for age in (3000, 1000, 2000)]
    write_document(bucket, {"keys": [key.public_jwk() for key in keys]})
    await one.start()
    assert one.signing == f"old-prefix-{START - 1000:.0f}"
    assert await one.states() == {
        f"old-prefix-{START - 3000:.0f}": "retiring",
        f"old-prefix-{START - 2000:.0f}": "retiring",
        f"old-prefix-{START - 1000:.0f}": "active",
    }


async def test_a_key_put_there_by_hand_is_picked_up_without_a_restart(
    server: Callable[..., Server], bucket: Path
) -> None:
    """When it stands in the JWKS it signs after the wait; its odd kid breaks nothing."""
    one = await server().start()
    one.time.advance(100)
    key = put_by_hand(one.folder, "by hand", created_at=one.time.now)
    content = document(bucket)
    content["keys"].append(key.public_jwk())
    write_document(bucket, content)
    await one.keys.tick()
    assert one.keys._next_sync <= one.time.passed
    await one.keys.sync()
    assert (await one.states())["by hand"] == "published"
    await one.pass_time(301)
    assert one.signing == "by hand"


async def test_a_running_server_looks_at_its_folder_and_document_by_itself(
    server: Callable[..., Server], bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody calls anything: run notices the key, reads the document, and lists the key."""
    one = await server().start()
    monkeypatch.setattr(one.time, "sleep", asyncio.sleep)
    running = asyncio.ensure_future(one.keys.run())
    key = put_by_hand(one.folder, f"tb-{START + 5:.0f}")
    write_document(bucket, {"keys": [*document(bucket)["keys"], key.public_jwk()]})
    await until_async(lambda: key.kid in {known.kid for known in one.keys.ring.published}, timeout_s=30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert one.signing == f"tb-{START:.0f}"


async def test_without_a_bucket_a_key_put_there_by_hand_is_published(tmp_path: Path, time: FakeTime) -> None:
    """The folder's keys are the document."""
    one = Server(tmp_path / "keys", None, time)
    await one.keys.start()
    time.advance(100)
    put_by_hand(one.folder, f"tb-{time.now:.0f}")
    await one.keys.tick()
    time.advance(301)
    await one.keys.tick()
    assert one.signing == f"tb-{START + 100:.0f}"


async def test_half_a_pair_stops_nothing_but_itself(server: Callable[..., Server]) -> None:
    """It is named, and never deleted."""
    one = await server().start()
    key = put_by_hand(one.folder, f"tb-{START + 5:.0f}")
    (one.folder / f"{key.kid}.public.jwk").unlink()
    await one.pass_time(1)
    assert one.signing == f"tb-{START:.0f}"
    assert any("the public half is missing" in line for line in one.log.of("warning"))
    await one.keys.housekeeping()
    assert key.kid in one.private


async def test_a_second_program_writing_a_key_over_an_own_one_changes_nothing_else(
    server: Callable[..., Server], bucket: Path
) -> None:
    """Another key under the same kid is not the one that was confirmed: it does not sign."""
    one = await server().start()
    old = one.signing
    put_by_hand(one.folder, old)
    await one.pass_time(1)
    assert one.signing == ""
    assert [key["kid"] for key in document(bucket)["keys"]] == [old]
