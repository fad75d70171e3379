"""The keys that the settings describe, and housekeeping without a server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from harness.log import Lines

from tailbone.config.load import load
from tailbone.counting import StoreCounts
from tailbone.daemon.keys import housekeeping, key_lifecycle
from tailbone.errors import ConfigError, TailboneError

if TYPE_CHECKING:
    from pathlib import Path


def test_housekeeping_needs_a_bucket(tmp_path: Path) -> None:
    config = load({"keys.dir": str(tmp_path)}, environ={})
    with pytest.raises(ConfigError, match=r"keys\.bucket is not set"):
        housekeeping(config, force=False, dry_run=False)


def test_housekeeping_makes_no_folder(tmp_path: Path) -> None:
    """A mistyped folder is refused, and still does not exist afterwards."""
    folder = tmp_path / "kyes"
    config = load({"keys.dir": str(folder), "keys.bucket": (tmp_path / "bucket").as_uri()}, environ={})
    with pytest.raises(TailboneError, match="kyes"):
        housekeeping(config, force=False, dry_run=False)
    assert folder.exists() is False


# --- the discovery document


async def published(bucket: Path, **settings: str) -> tuple[list[str], Lines]:
    """Publish once with the issuer https://issuer.example; return the notes, and the log."""
    flags = {
        "keys.dir": str(bucket.parent / "keys"),
        "keys.bucket": bucket.as_uri(),
        "keys.issuer": "https://issuer.example",
        "keys.algorithm": "ES256",
    }
    named = {name.replace("_", "."): value for name, value in settings.items()}
    log = Lines()
    async with key_lifecycle(load(flags | named, environ={}), log, StoreCounts()) as keys:  # type: ignore[arg-type]
        await keys.sync()
        return keys.notes(), log


def files(bucket: Path) -> list[str]:
    """Return the documents of a bucket."""
    return sorted(str(file.relative_to(bucket)) for file in bucket.rglob("*") if file.name[0] != ".")


async def test_the_discovery_document_is_beside_the_jwks(tmp_path: Path) -> None:
    """It is in the folder of keys.keyPath, and says what verifiers will find."""
    assert (await published(tmp_path / "bucket", keys_keyPath="prod/jwks.json"))[0] == []
    assert files(tmp_path / "bucket") == ["prod", "prod/jwks.json", "prod/openid-configuration"]
    document = json.loads((tmp_path / "bucket/prod/openid-configuration").read_bytes())
    assert document["issuer"] == "https://issuer.example"
    assert document["jwks_uri"] == "https://issuer.example/.well-known/jwks.json"
    assert document["id_token_signing_alg_values_supported"] == ["ES256"]


async def test_the_discovery_document_may_have_another_path(tmp_path: Path) -> None:
    """The setting keys.discoveryPath names it."""
    await published(tmp_path / "bucket", keys_keyPath="a/jwks.json", keys_discoveryPath="b/discovery.json")
    assert files(tmp_path / "bucket") == ["a", "a/jwks.json", "b", "b/discovery.json"]


@pytest.mark.parametrize(("name", "value"), [("keys_discoveryPath", "none"), ("keys_issuer", "tailbone")])
async def test_no_discovery_document(tmp_path: Path, name: str, value: str) -> None:
    """There is none if it is not wanted, or if the issuer is not a URL."""
    await published(tmp_path / "bucket", **{"keys_keyPath": "jwks.json", name: value})
    assert files(tmp_path / "bucket") == ["jwks.json"]


async def test_the_document_of_another_issuer_is_an_error(tmp_path: Path) -> None:
    """It is left as it is; the JWKS is published all the same, and both issuers are named."""
    await published(tmp_path / "bucket", keys_keyPath="jwks.json", keys_issuer="https://other.example")
    before = (tmp_path / "bucket/openid-configuration").read_bytes()
    notes, log = await published(tmp_path / "bucket", keys_keyPath="jwks.json")
    assert (tmp_path / "bucket/openid-configuration").read_bytes() == before
    [note] = notes
    assert note.text.startswith(
        f"discovery: file://{tmp_path}/bucket/openid-configuration is the discovery document"
    )
    assert '"https://other.example"' in note.text
    assert '"https://issuer.example"' in note.text
    [line] = log.of("error")
    assert note.text.removeprefix("discovery: ") in line


async def test_the_discovery_document_follows_the_published_keys(tmp_path: Path) -> None:
    """A key of another algorithm is in it after the next look at the JWKS."""
    bucket = tmp_path / "bucket"
    flags = {"keys.dir": str(tmp_path / "keys"), "keys.bucket": bucket.as_uri(), "keys.algorithm": "ES256"}
    config = load({**flags, "keys.issuer": "https://issuer.example"}, environ={})
    async with key_lifecycle(config, Lines(), StoreCounts()) as keys:  # type: ignore[arg-type]
        await keys.sync()
        await keys.generate("RS256")
        await keys.sync()
    document = json.loads((bucket / ".well-known/openid-configuration").read_bytes())
    assert document["id_token_signing_alg_values_supported"] == ["ES256", "RS256"]


async def test_no_discovery_document_without_a_jwks(tmp_path: Path) -> None:
    """The JWKS comes first: what is in its place cannot be overwritten, so neither is published."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    (bucket / "jwks.json").write_text("<html>")
    notes, _ = await published(bucket, keys_keyPath="jwks.json", keys_discoveryPath="discovery.json")
    assert files(bucket) == ["jwks.json"]
    assert [note.code for note in notes] == ["foreign_document", "jwks_stale"]
