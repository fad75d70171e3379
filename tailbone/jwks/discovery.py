"""The discovery document (OpenID Connect Discovery 1.0 section 3), and its publication beside the JWKS."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.errors import ForeignDocumentError, StoreError
from tailbone.json_object import parse_object
from tailbone.jwks.document import CONTENT_TYPE
from tailbone.jwks.store import cache_control
from tailbone.text import quote

if TYPE_CHECKING:
    from tailbone.jwks.document import Document
    from tailbone.jwks.store import Store
    from tailbone.process.log import Logger

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
JWKS_PATH: Final = "/.well-known/jwks.json"
"""Where the two documents are, below the issuer and on every port that serves them."""

LONGEST_ISSUER: Final = 255
"""The longest issuer that AWS accepts, in characters."""

_CLAIMS: Final = ("iss", "sub", "aud", "exp", "iat", "nbf", "jti")
_OPERATION_S: Final = 10.0


class Discovery:
    """An issuer that verifiers can discover.

    Attributes:
        issuer: its URL, the claim iss of its tokens.
        url: of its discovery document (OpenID Connect Discovery 1.0 section 4).
        jwks_uri: the URL of its JWKS.
    """

    def __init__(self, issuer: str, *, jwks_uri: str = "") -> None:
        """Describe an issuer.

        Args:
            issuer: its URL.
            jwks_uri: the URL of its JWKS; by default below the issuer's.
        """
        self.issuer = issuer
        self.url = f"{issuer}{DISCOVERY_PATH}"
        self.jwks_uri = jwks_uri or f"{issuer}{JWKS_PATH}"

    def members(self, jwks: Document) -> dict[str, object]:
        """Return the document's members; the algorithms are those of the published keys."""
        return {
            "issuer": self.issuer,
            "jwks_uri": self.jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted({key.algorithm for key in jwks.keys} - {""}),
            "claims_supported": list(_CLAIMS),
        }

    def render(self, jwks: Document) -> bytes:
        """Return the document as JSON text."""
        return msgspec.json.format(msgspec.json.encode(self.members(jwks)), indent=2) + b"\n"


def discovery_of(issuer: str, *, jwks_uri: str = "") -> Discovery | None:
    """Return the issuer of the settings keys.issuer and keys.jwksUri; None if it is not a URL."""
    return Discovery(issuer, jwks_uri=jwks_uri) if issuer.startswith(("https://", "http://")) else None


class DiscoveryPublisher:
    """The discovery document in the store of the JWKS."""

    def __init__(
        self,
        discovery: Discovery,
        store: Store,
        path: str,
        *,
        max_age_s: float,
        conditional: bool,
        log: Logger,
    ) -> None:
        """Publish one issuer's document at one path of a store.

        Args:
            discovery: the issuer.
            store: where it is kept; its owner closes it.
            path: its path in the store.
            max_age_s: how long caches may keep it, in seconds.
            conditional: False means that this is the only writer, to a store that ignores conditions.
            log: for the line of each write.
        """
        self._discovery = discovery
        self._store = store
        self._path = path
        self._location = f"{store.location}/{path}"
        self._cache_control = cache_control(max_age_s)
        self._conditional = conditional
        self._log = log

    async def publish(self, jwks: Document) -> None:
        """Write the document unless it is there already; to be called after the JWKS was published.

        Args:
            jwks: the published JWKS.

        Raises:
            ForeignDocumentError: another issuer's document, or something else, is there and was left.
            StoreError: it could not be read or written; the next call tries again.
        """
        try:
            async with asyncio.timeout(_OPERATION_S):
                await self._publish(jwks)
        except TimeoutError:
            raise StoreError("the store did not answer in time: check whether it can be reached") from None

    async def _publish(self, jwks: Document) -> None:
        try:
            stored = await self._store.read(self._path)
        except ForeignDocumentError as error:  # it is too long
            raise self._not_a_document() from error
        if stored is not None and self._own_members(stored.data) == self._discovery.members(jwks):
            return
        await self._store.write(
            self._path,
            self._discovery.render(jwks),
            etag=stored.etag if stored else None,
            conditional=self._conditional,
            content_type=CONTENT_TYPE,
            cache_control=self._cache_control,
        )
        self._log.info("the discovery document is published", location=self._location)

    def _own_members(self, data: bytes) -> dict[str, object]:
        """Return the members of this issuer's document.

        Raises:
            ForeignDocumentError: it is another issuer's, or not a discovery document.
        """
        members = parse_object(data)
        issuer = members.get("issuer") if members else None
        if members is None or not isinstance(issuer, str):
            raise self._not_a_document()
        if issuer != self._discovery.issuer:
            theirs, ours = (quote(text, limit=LONGEST_ISSUER) for text in (issuer, self._discovery.issuer))
            raise ForeignDocumentError(
                f"{self._location} is the discovery document of issuer {theirs}, while this server's is "
                f"{ours}; it is left as it is: correct keys.issuer, or set keys.discoveryPath to another",
                public=f"discovery: the published document is that of issuer {theirs}, not of {ours}",
            )
        return members

    def _not_a_document(self) -> ForeignDocumentError:
        return ForeignDocumentError(
            f"{self._location} is not a discovery document; it is left as it is: delete it, "
            "or set keys.discoveryPath to another path"
        )
