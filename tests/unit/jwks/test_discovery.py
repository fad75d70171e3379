"""The discovery document and its publication, in a bucket that is a directory."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from harness.log import Lines

from tailbone.errors import ForeignDocumentError, StoreConflictError
from tailbone.jwks.directory import DirectoryStore
from tailbone.jwks.discovery import Discovery, DiscoveryPublisher, discovery_of
from tailbone.jwks.document import LARGEST, Document

if TYPE_CHECKING:
    from pathlib import Path

    from tailbone.jwks.store import Stored

ISSUER = "https://issuer.example/prod"
PATH = ".well-known/openid-configuration"
JWKS = Document({"keys": [{"kid": "a", "alg": "RS256"}]})
MEMBERS = {
    "issuer": ISSUER,
    "jwks_uri": f"{ISSUER}/.well-known/jwks.json",
    "response_types_supported": ["id_token"],
    "subject_types_supported": ["public"],
    "id_token_signing_alg_values_supported": ["RS256"],
    "claims_supported": ["iss", "sub", "aud", "exp", "iat", "nbf", "jti"],
}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


@pytest.fixture
def log() -> Lines:
    return Lines()


@pytest.fixture
def publisher(store: DirectoryStore, log: Lines) -> DiscoveryPublisher:
    return publisher_in(store, log)


def publisher_in(
    store: DirectoryStore, log: Lines, *, issuer: str = ISSUER, conditional: bool = True
) -> DiscoveryPublisher:
    return DiscoveryPublisher(
        Discovery(issuer), store, PATH, max_age_s=300.0, conditional=conditional, log=log
    )


def test_the_document_has_exactly_these_members() -> None:
    """These are all that verifiers read; the URL follows the issuer's path (section 4)."""
    discovery = Discovery(ISSUER)
    assert json.loads(discovery.render(JWKS)) == MEMBERS
    assert discovery.url == "https://issuer.example/prod/.well-known/openid-configuration"


def test_the_jwks_may_have_another_url() -> None:
    """The setting keys.jwksUri replaces the default."""
    discovery = Discovery(ISSUER, jwks_uri="https://keys.example/jwks.json")
    assert discovery.members(JWKS)["jwks_uri"] == "https://keys.example/jwks.json"


def test_the_algorithms_are_those_of_the_published_keys() -> None:
    """Each once; keys that do not name their algorithm add nothing."""
    jwks = Document({"keys": [{"alg": "RS256"}, {"alg": "ES256"}, {"alg": "RS256"}, {}]})
    assert Discovery(ISSUER).members(jwks)["id_token_signing_alg_values_supported"] == ["ES256", "RS256"]


def test_only_a_url_can_be_discovered() -> None:
    """An issuer that is a name has no place for the document."""
    assert discovery_of("tailbone") is None
    found = discovery_of("http://127.0.0.1:8090")
    assert found is not None
    assert found.url == "http://127.0.0.1:8090/.well-known/openid-configuration"


async def test_the_document_is_written_once(
    publisher: DiscoveryPublisher, store: DirectoryStore, log: Lines, tmp_path: Path
) -> None:
    """A document that says the same already stays as it is."""
    await publisher.publish(JWKS)
    assert json.loads((tmp_path / PATH).read_bytes()) == MEMBERS
    (tmp_path / PATH).write_text(json.dumps(MEMBERS))
    await publisher.publish(JWKS)
    assert (tmp_path / PATH).read_text() == json.dumps(MEMBERS)
    assert len(log.of("info")) == 1


async def test_a_document_that_differs_is_replaced(publisher: DiscoveryPublisher, tmp_path: Path) -> None:
    """As after the first key of another algorithm."""
    await publisher.publish(JWKS)
    await publisher.publish(Document({"keys": [{"alg": "ES256"}]}))
    written = json.loads((tmp_path / PATH).read_bytes())
    assert written["id_token_signing_alg_values_supported"] == ["ES256"]


async def test_a_document_of_another_issuer_is_left(
    publisher: DiscoveryPublisher, store: DirectoryStore, log: Lines, tmp_path: Path
) -> None:
    """Both issuers are named."""
    await publisher_in(store, log, issuer="https://other.example").publish(JWKS)
    before = (tmp_path / PATH).read_bytes()
    both = r"https://other\.example.*https://issuer\.example/prod"
    with pytest.raises(ForeignDocumentError, match=both) as raised:
        await publisher.publish(JWKS)
    assert re.search(both, raised.value.public)
    assert str(tmp_path) not in raised.value.public
    assert (tmp_path / PATH).read_bytes() == before


@pytest.mark.parametrize("data", [b"<html>", b"[]", b"{}", b'{"issuer":1}', b"\xff", b" " * (LARGEST + 1)])
async def test_what_is_not_a_discovery_document_is_left(
    publisher: DiscoveryPublisher, tmp_path: Path, data: bytes
) -> None:
    """Somebody may need it."""
    (tmp_path / PATH).parent.mkdir()
    (tmp_path / PATH).write_bytes(data)
    with pytest.raises(ForeignDocumentError, match=r"is not a discovery document.*keys\.discoveryPath"):
        await publisher.publish(JWKS)
    assert (tmp_path / PATH).read_bytes() == data


@pytest.mark.parametrize("exists", [False, True])
async def test_a_write_between_read_and_write_is_not_lost(
    store: DirectoryStore, log: Lines, tmp_path: Path, exists: bool
) -> None:
    """The write is conditional; the next call sees the other issuer's document."""
    if exists:
        await publisher_in(store, log).publish(JWKS)

    class Raced(DirectoryStore):
        async def read(self, path: str) -> Stored | None:
            found = await super().read(path)
            file = tmp_path / path
            file.parent.mkdir(exist_ok=True)
            file.write_text('{"issuer":"https://other.example"}')
            return found

    late = publisher_in(Raced(tmp_path), log)
    with pytest.raises(StoreConflictError):
        await late.publish(Document({"keys": [{"alg": "ES256"}]}))
    with pytest.raises(ForeignDocumentError):
        await late.publish(JWKS)
