"""Identity: what the node's whois says about a caller, made safe to put in a token."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from tailbone.errors import UnknownCallerError
from tailbone.text import TEXT_LIMIT, safe_text

# Zero-width (non-)joiners: letters of several scripts, and emoji, are written with them.
_JOINERS: Final = frozenset("\u200c\u200d")
_STABLE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A peer of the tailnet: a person's node, or a tagged one.

    Attributes:
        node_id: the stable id of the node, never reused.
        node: its full DNS name, without the final dot.
        user_id: who owns the node; 0 for a tagged node.
        login: the owner's login name; empty for a tagged node.
        display_name: what the owner is called; chosen by the owner, so nothing may be decided by it.
        tags: the ACL tags, each with its ``tag:``; a node with tags belongs to nobody.
        shared: whether the node was shared in from another tailnet.
        expired: whether the node's key has expired.
        addresses: the node's tailnet addresses.
        capabilities: what grants give this peer towards this node, by capability name.
    """

    node_id: str
    node: str
    user_id: int = 0
    login: str = ""
    display_name: str = ""
    tags: tuple[str, ...] = ()
    shared: bool = False
    expired: bool = False
    addresses: tuple[str, ...] = ()
    capabilities: dict[str, list[Any]] = {}

    @classmethod
    def decode(cls, answer: bytes | str) -> Identity:
        """Read the JSON answer of the native whois.

        Names come from a login provider or from the node itself: each character that could deceive a reader
        is replaced by U+FFFD, which no clean name holds: cleaning never turns one name into another.

        Args:
            answer: one JSON object, as design.md's ``tb_whois`` gives it; unknown members are ignored.

        Raises:
            UnknownCallerError: the answer names no node, or nobody who could be its subject.
        """
        try:
            identity = _decode(answer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
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

        Names can be reused, ids cannot.
        """
        return f"node:{self.node_id}" if self.tags else f"user:{self.user_id}"


def _with_safe_text(identity: Identity) -> Identity:
    # Nearly every answer is clean: one look at all its names together.
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
