"""The identity of a caller: the node's whois answer, made safe to put in a token."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from tailbone.errors import ExpiredCallerError, SharedCallerError, UnknownCallerError
from tailbone.text import TEXT_LIMIT, safe_text

# Zero-width joiner and non-joiner, which several scripts and emoji need.
_JOINERS: Final = frozenset("\u200c\u200d")
_STABLE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A peer of the tailnet: a person's node, or a tagged one.

    Attributes:
        node_id: the stable id of the node, never reused.
        node: its full DNS name, without the final dot.
        user_id: the owner's id; 0 for a tagged node.
        login: the owner's login name; empty for a tagged node.
        display_name: the owner's name. The owner chooses it, so no decision may depend on it.
        tags: the ACL tags, each with its ``tag:``; a tagged node has no owner.
        shared: whether the node was shared in from another tailnet.
        expired: whether the node's key has expired.
        key_expiry: when it expires, in Unix seconds; 0 for never.
        addresses: the node's tailnet addresses.
        capabilities: what the tailnet's grants allow this peer on our node, by capability name. Each value
            is JSON text: one that cannot be decoded must not exclude the caller.
    """

    node_id: str
    node: str
    user_id: int = 0
    login: str = ""
    display_name: str = ""
    tags: tuple[str, ...] = ()
    shared: bool = False
    expired: bool = False
    key_expiry: int = 0
    addresses: tuple[str, ...] = ()
    capabilities: dict[str, tuple[str, ...]] = {}

    @classmethod
    def decode(cls, answer: bytes | str) -> Identity:
        """Decode the JSON answer of the native whois.

        Names come from a login provider or from the node itself. Each deceptive character is replaced with
        U+FFFD, which no clean name contains, so cleaning never turns one name into another.

        Args:
            answer: one JSON object, as ``tb_whois`` returns it; unknown members are ignored.

        Raises:
            UnknownCallerError: the answer is malformed, or its node has neither a user nor tags.
        """
        try:
            identity = _decode(answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UnknownCallerError(
                "your node could not be identified", detail=f"whois answer: {error}"
            ) from None
        if _STABLE_ID.fullmatch(identity.node_id) is None:
            raise UnknownCallerError("your node could not be identified", detail="whois answer: bad node_id")
        if not identity.tags and identity.user_id <= 0:
            raise UnknownCallerError(
                "your node has neither a user nor tags", detail=f"whois answer: node {identity.node_id}"
            )
        return _with_safe_text(identity)

    @property
    def subject(self) -> str:
        """``user:<user id>``, or ``node:<stable node id>`` for a tagged node.

        Names can be reused, ids are not.
        """
        return f"node:{self.node_id}" if self.tags else f"user:{self.user_id}"

    @property
    def login_or_tags(self) -> str:
        """The owner's login name, or a tagged node's tags, as people know the caller."""
        return self.login or ",".join(self.tags)

    def check_membership(self, *, allow_shared: bool = False) -> None:
        """Check that the node is a current member of this tailnet.

        Args:
            allow_shared: whether a node that is shared in from another tailnet counts as one.

        Raises:
            ExpiredCallerError: the node's key has expired.
            SharedCallerError: the node is shared in.
        """
        if self.expired:
            raise ExpiredCallerError("the key of your node has expired: log in to the tailnet again")
        if self.shared and not allow_shared:
            raise SharedCallerError(
                "your node is shared in from another tailnet; only this tailnet's own nodes are allowed"
            )


def _with_safe_text(identity: Identity) -> Identity:
    # Almost every answer is clean, so check all its names at once.
    names = identity.node + identity.login + identity.display_name + "".join(identity.tags)
    if names.isprintable() and len(names) <= TEXT_LIMIT:
        return identity
    return msgspec.structs.replace(
        identity,
        node=safe_text(identity.node),
        login=safe_text(identity.login),
        display_name=safe_text(identity.display_name, _JOINERS),
        tags=tuple(safe_text(tag) for tag in identity.tags),
    )


_decode = msgspec.json.Decoder(Identity).decode
