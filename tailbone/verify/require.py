"""Decide by claims who may use a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tailbone.verify.errors import NotPermittedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tailbone.verify.claims import Claims


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """Who is permitted; see ``require``."""

    tags: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    scope: frozenset[str] = frozenset()

    def permits(self, claims: Claims) -> bool:
        """Whether a caller with these claims is permitted."""
        named = self.tags or self.users or self.groups
        return self.scope <= claims.scopes and (
            not named
            or not self.tags.isdisjoint(claims.tags)
            or not self.users.isdisjoint((claims.user, claims.sub))
            or not self.groups.isdisjoint(claims.groups)
        )

    def check(self, claims: Claims) -> None:
        """Check that a caller with these claims is permitted.

        Raises:
            NotPermittedError: it is not.
        """
        if not self.permits(claims):
            raise NotPermittedError("the token's caller is not permitted")


def require(
    *,
    tags: str | Iterable[str] = (),
    users: str | Iterable[str] = (),
    groups: str | Iterable[str] = (),
    scope: str | Iterable[str] = (),
) -> Requirement:
    """Return a requirement: any of these tags, users or groups, and every word of the scope.

    Args:
        tags: ACL tags: ``tag:ci``.
        users: login names, or values of the claim ``sub``, which are never reused.
        groups: groups that the tailnet's policy grants.
        scope: words, as text with spaces or one by one.
    """
    return Requirement(
        tags=_names(tags),
        users=_names(users),
        groups=_names(groups),
        scope=frozenset(scope.split()) if isinstance(scope, str) else frozenset(scope),
    )


def _names(names: str | Iterable[str]) -> frozenset[str]:
    # An empty name would match an empty claim.
    return frozenset([names] if isinstance(names, str) else names) - {""}
