"""The first key, and what a start finds."""

from __future__ import annotations

import json
import os
import shutil
import stat
from typing import TYPE_CHECKING

import msgspec
import pytest
from harness.keys import EC, JWKS, START, FakeTime, Server, document, write_document
from harness.problems import texts
from harness.settings import key_settings

from tailbone.errors import KeyFileError, KeyStateError, NoSigningKeyError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def test_an_empty_folder_gets_its_first_key_and_it_signs_at_once(server: Callable[..., Server]) -> None:
    """Published into a document that held no key, it waits for nobody's cache."""
    one = await server().start()
    assert one.signing == f"tb-{START:.0f}"
    assert one.published == [one.signing]
    assert one.keys.reasons() == []


async def test_no_key_signs_before_it_was_read_back(server: Callable[..., Server]) -> None:
    """After start alone the key is pending: reasons say so, and the ring refuses."""
    one = server()
    await one.keys.start()
    assert texts(one.keys.reasons()) == [f"keys: tb-{START:.0f} is not published yet"]
    with pytest.raises(NoSigningKeyError):
        one.keys.ring.require()


async def test_a_written_document_that_cannot_be_read_back_is_no_confirmation(
    server: Callable[..., Server],
) -> None:
    """The store took the write; until a read shows the key, it does not sign."""
    one = server()
    await one.keys.start()
    assert one.store is not None

    def after(call: str) -> None:
        if call == "write":
            one.store.fail(StoreError("gone"), "read")  # type: ignore[union-attr]

    one.store.after = after
    await one.keys.sync()
    assert one.published == [f"tb-{START:.0f}"]
    assert one.signing == ""
    one.store.recover()
    await one.keys.sync()
    assert one.signing == f"tb-{START:.0f}"


async def test_the_first_key_beside_other_servers_keys_waits(server: Callable[..., Server]) -> None:
    """Caches hold the document without it for up to max-age."""
    await server("one").start()
    two = await server("two").start()
    assert two.signing == ""
    assert texts(two.keys.reasons()) == [f"keys: {two.private[0]} is published and signs in 300 s"]
    await two.pass_time(299)
    assert two.signing == ""
    await two.pass_time(2)
    assert two.signing == two.private[0]


async def test_start_does_not_ask_the_store(server: Callable[..., Server]) -> None:
    """A store that fails in every call neither delays nor fails start."""
    one = server()
    assert one.store is not None
    one.store.fail(StoreError("away"))
    await one.keys.start()
    assert one.store.reads == 0
    assert len(one.private) == 1


async def test_the_store_is_tried_again_with_growing_pauses(server: Callable[..., Server]) -> None:
    """1, 2, 4 … at most 60 s apart; and it recovers by itself."""
    one = server()
    await one.keys.start()
    assert one.store is not None
    one.store.fail(StoreError("away"))
    pauses = []
    for _ in range(8):
        await one.keys.sync()
        pauses.append(one.keys._next_sync - one.time.passed)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert one.keys.reasons()[-1].text == "jwks: away"
    one.store.recover()
    await one.keys.sync()
    assert one.keys.reasons() == []


async def test_files_have_the_modes_that_private_keys_need(server: Callable[..., Server]) -> None:
    """Folder 0700, private half and state 0600."""
    one = await server().start()
    modes = {
        path.name.split(".", 1)[1]: stat.S_IMODE(path.stat().st_mode) for path in one.folder.glob("tb-*")
    }
    assert modes == {"private.jwk": 0o600, "public.jwk": 0o644, "state.json": 0o600}
    assert stat.S_IMODE(one.folder.stat().st_mode) == 0o700


async def test_a_private_key_that_everybody_can_read_stops_the_start(server: Callable[..., Server]) -> None:
    """The error gives the command that fixes it."""
    one = await server().start()
    path = one.folder / f"{one.signing}.private.jwk"
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        await one.again().keys.start()


async def test_a_folder_that_everybody_can_write_stops_the_start(server: Callable[..., Server]) -> None:
    """Every user of the machine could put a key there."""
    one = await server().start()
    one.folder.chmod(0o777)
    with pytest.raises(KeyFileError, match=rf"chmod o-w {one.folder}, or name a folder inside it \(--dir\)"):
        await one.again().keys.start()


async def test_group_access_is_a_warning(server: Callable[..., Server]) -> None:
    """Kubernetes' fsGroup makes it so."""
    one = await server().start()
    (one.folder / f"{one.signing}.private.jwk").chmod(0o640)
    two = await one.again().start()
    assert two.signing == one.signing
    assert any("the group can read" in line for line in two.log.of("warning"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_another_users_folder_and_key_are_warnings(server: Callable[..., Server]) -> None:
    """Their owner can change the folder and read the key, but root may well work in a user's folder."""
    one = await server().start()
    os.chown(one.folder, 1000, -1)
    os.chown(one.folder / f"{one.signing}.private.jwk", 1001, -1)
    two = await one.again().start()
    assert two.signing == one.signing
    warnings = two.log.of("warning")
    assert any(f"user 1000 can write to the key folder {one.folder}" in line for line in warnings)
    assert any("user 1001 can read" in line for line in warnings)


async def test_a_folder_of_the_go_programs_mode_is_fine(server: Callable[..., Server]) -> None:
    """It made them 0755."""
    one = await server().start()
    one.folder.chmod(0o755)
    two = await one.again().start()
    assert two.signing == one.signing
    assert two.log.of("warning") == []


async def test_a_restart_goes_on_signing_without_the_store(server: Callable[..., Server]) -> None:
    """The confirmation is on disk; the last good copy is served, other servers' keys in it."""
    one = await server("one").start()
    await server("two").start()
    await one.keys.sync()
    again = one.again()
    assert again.store is not None
    again.store.fail(StoreError("away"))
    await again.start()
    assert again.signing == one.signing
    assert json.loads(again.keys.published_document()) == document(again.bucket)  # type: ignore[arg-type]
    assert again.keys.reasons() == []
    assert texts(again.keys.notes()) == ["jwks: away", "jwks: stale: not read since the start"]


async def test_a_key_confirmed_for_another_place_does_not_sign(
    tmp_path: Path, time: FakeTime, server: Callable[..., Server]
) -> None:
    """It is published in the new place first; where others' keys are, it waits."""
    one = await server("one").start()
    time.advance(10)
    other = Server(tmp_path / "other", tmp_path / "elsewhere", time)
    await other.start()
    await one.keys.close()
    moved = Server(tmp_path / "one", tmp_path / "elsewhere", time)
    await moved.keys.start()
    assert moved.signing == ""
    await moved.keys.sync()
    assert moved.signing == ""
    assert moved.published == [other.signing, one.signing]
    await moved.pass_time(301)
    assert moved.signing == one.signing


async def test_a_process_without_a_store_signs_with_what_another_one_publishes(
    tmp_path: Path, time: FakeTime, server: Callable[..., Server]
) -> None:
    """As issuer and admin apart, of which only one has the bucket; it takes no confirmation away."""
    admin = await server("keys").start()
    issuer = await Server(tmp_path / "keys", None, time).start()
    first = admin.signing
    assert issuer.signing == first
    made = await admin.keys.generate()
    for one in (issuer, admin, issuer):
        await one.pass_time(99)
    assert issuer.signing == first
    await admin.pass_time(3)
    await issuer.pass_time(1)
    assert admin.signing == issuer.signing == made.key_id
    for change in (issuer.keys.generate(), issuer.keys.remove(first)):
        with pytest.raises(KeyStateError, match="are published in file://"):
            await change
    await admin.keys.remove(made.key_id)
    await issuer.keys.tick()
    assert issuer.signing == admin.signing == first
    assert [key["kid"] for key in json.loads(issuer.keys.published_document())["keys"]] == [first]


async def test_a_process_without_a_store_changes_nothing_in_a_folder_that_was_published_elsewhere(
    tmp_path: Path, time: FakeTime, server: Callable[..., Server]
) -> None:
    """It neither makes, retires nor removes keys, whatever its settings are; it signs with what it reads."""
    admin = await server("keys").start()
    made = await admin.keys.generate()
    await admin.keys.close()
    before = {path: path.read_bytes() for path in admin.folder.iterdir()}
    rotating = msgspec.structs.replace(EC, rotate_every_s=600.0, expiry_s=7200.0)
    issuer = await Server(tmp_path / "keys", None, time, settings=rotating).start()
    for _ in range(20):
        await issuer.pass_time(1000)
    assert (issuer.signing, issuer.keys.ring.expiry_s) == (admin.signing, 1200.0)
    for change in (issuer.keys.generate(), issuer.keys.remove(made.key_id)):
        with pytest.raises(KeyStateError, match=r"keys\.bucket"):
            await change
    assert {path: path.read_bytes() for path in admin.folder.iterdir()} == before


async def test_a_process_without_a_store_leaves_a_pending_key_alone(
    tmp_path: Path, time: FakeTime, server: Callable[..., Server]
) -> None:
    """Another one made it, and cannot publish it yet: nobody may sign with it."""
    admin = server("keys")
    assert admin.store is not None
    admin.store.fail(StoreError("away"))
    await admin.start()
    issuer = await Server(tmp_path / "keys", None, time).start()
    await issuer.pass_time(100)
    assert (issuer.signing, admin.signing, len(issuer.private)) == ("", "", 1)
    admin.store.recover()
    await admin.pass_time(100)
    await issuer.keys.tick()
    assert issuer.signing == admin.signing == admin.published[0]


async def test_a_folder_of_a_server_without_a_store_gets_one(
    tmp_path: Path, time: FakeTime, server: Callable[..., Server]
) -> None:
    """The key goes on signing in every process, from one moment to the next."""
    issuer = await Server(tmp_path / "keys", None, time).start()
    kid = issuer.signing
    admin = await server("keys").start()
    await issuer.pass_time(1)
    assert admin.published == [kid]
    assert admin.signing == issuer.signing == kid
    assert issuer.signers == [kid]


async def test_a_key_whose_kid_another_key_has_in_the_new_place_is_kept_and_never_signs(
    tmp_path: Path, time: FakeTime, server: Callable[..., Server]
) -> None:
    """It may have signed where it was; the server makes another one."""
    one = await server("one").start()
    other = Server(tmp_path / "other", tmp_path / "elsewhere", time)
    await other.start()
    await one.keys.close()
    moved = Server(tmp_path / "one", tmp_path / "elsewhere", time)
    await moved.start()
    assert one.signing == other.signing
    assert len(moved.private) == 2
    assert one.signing in moved.private
    assert len(set(moved.published)) == 2
    await moved.pass_time(301)
    assert moved.signing in set(moved.published) - {one.signing}


async def test_the_published_jwk_has_what_verifiers_ask_for_and_nothing_else(
    server: Callable[..., Server], bucket: Path
) -> None:
    """``kty``, ``use``, ``alg``, ``kid`` and the key's own members."""
    rsa = await server(settings=key_settings()).start()
    await rsa.keys.generate(algorithm="ES256")
    first, second = document(bucket)["keys"]
    assert list(first) == ["kty", "use", "alg", "kid", "n", "e"]
    assert (first["kty"], first["use"], first["alg"], first["kid"]) == ("RSA", "sig", "RS256", rsa.signing)
    assert set(second) == {"kty", "use", "alg", "kid", "crv", "x", "y"}
    assert (second["kty"], second["use"], second["alg"], second["crv"]) == ("EC", "sig", "ES256", "P-256")


@pytest.mark.parametrize(
    "damage",
    [b"", b'{"keys":', b'{"keys":{}}', b"<html>", b'{"keys":[1]}', b"[]", b"\xff", b'{"keys":[],"keys":[]}'],
)
async def test_a_document_that_cannot_be_parsed_is_never_overwritten(
    server: Callable[..., Server], bucket: Path, damage: bytes
) -> None:
    """Neither by the first key nor by a generate; the reason says what to do."""
    write_document(bucket, damage)
    one = await server().start()
    assert one.signing == ""
    assert "it is left as it is" in one.keys.reasons()[-1].text
    with pytest.raises(StoreError):
        await one.keys.generate()
    assert (bucket / JWKS).read_bytes() == damage


async def test_without_a_bucket_the_folders_keys_are_the_document(tmp_path: Path, time: FakeTime) -> None:
    """The first key signs when start returns; the document lists what the folder has published."""
    one = Server(tmp_path / "keys", None, time)
    await one.keys.start()
    assert one.signing == f"tb-{START:.0f}"
    made = await one.keys.generate()
    assert made.state == "published"
    kids = [key["kid"] for key in json.loads(one.keys.published_document())["keys"]]
    assert kids == [one.signing, made.key_id]
    time.advance(301)
    await one.keys.tick()
    assert one.signing == made.key_id


async def test_a_wait_shorter_than_max_age_is_a_warning(server: Callable[..., Server]) -> None:
    """Caches may then lack a key that signs."""
    one = await server(settings=key_settings(algorithm="ES256", activate_after_s=10)).start()
    assert any("keys.activateAfter" in line for line in one.log.of("warning"))


async def test_without_a_bucket_a_folder_that_is_gone_stops_service_and_says_so(
    tmp_path: Path, time: FakeTime
) -> None:
    """As any folder without a key."""
    one = await Server(tmp_path / "keys", None, time).start()
    shutil.rmtree(one.folder)
    await one.pass_time(1)
    assert one.signing == ""
    assert one.keys.reasons()[0].text.startswith("keys: there is no key that can sign")
    assert one.log.of("error") == []
