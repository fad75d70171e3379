"""The steps that a plan consists of: each is one change of folder or document."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from tailbone.jwks.document import Document
from tailbone.keys.folder import Entry  # noqa: TC001 -- msgspec resolves it
from tailbone.keys.record import KeyState, Origin  # noqa: TC001 -- msgspec resolves it
from tailbone.keys.signing_key import SigningKey  # noqa: TC001 -- msgspec resolves it

_EMPTY: Final = Document.empty()


class WriteState(msgspec.Struct, frozen=True, kw_only=True):
    """Keep a key's new state; ``event`` says for the log what it means."""

    kid: str
    state: KeyState
    event: str
    warn: bool = False


class WritePublic(msgspec.Struct, frozen=True, kw_only=True):
    """Write a public half that a kill kept from being written."""

    key: SigningKey


class Clear(msgspec.Struct, frozen=True, kw_only=True):
    """Delete a key's files, or move them to ``removed/``."""

    entry: Entry
    how: Literal["delete", "set aside"]


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    """Change the document.

    Attributes:
        put: keys to put in.
        amend: keys whose entries say too little; one that is gone by now is not put back.
        drop: kid and thumbprint of those to take out; without a thumbprint every key of that kid.
    """

    put: tuple[SigningKey, ...] = ()
    amend: tuple[SigningKey, ...] = ()
    drop: tuple[tuple[str, str], ...] = ()

    def edit(self, document: Document | None) -> Document | None:
        """The document as it should be; a key whose kid somebody else has taken since stays out.

        Raises:
            KeyStateError: the document would hold too many keys.
        """
        # First of all, to make room.
        for kid, thumbprint in self.drop:
            if document:
                document = document.without(kid, thumbprint)
        for key in self.put:
            document = document or _EMPTY
            if document.has(key.kid, key.thumbprint) or not document.has_kid(key.kid):
                document = document.with_key(key.public_jwk(), key.thumbprint)
        for key in self.amend:
            if document and document.has(key.kid, key.thumbprint):
                document = document.with_key(key.public_jwk(), key.thumbprint)
        return document


class Make(msgspec.Struct, frozen=True, kw_only=True):
    """Make a key and write its pair."""

    origin: Origin


Step = WriteState | WritePublic | Clear | Publish | Make
