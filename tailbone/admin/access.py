"""Who may call which method: from a caller's identity and the settings to a yes or a reason. Pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tailbone.errors import AccessError, ExpiredCallerError, SharedCallerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailbone.token.identity import Identity

ACCESS_MODES: Final = ("acl", "grant")
"""``acl``: every caller that can reach the port; ``grant``: callers with a role by a capability."""


class Role(enum.IntEnum):
    """What a caller may do; a higher role includes the lower ones."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """The role's name in a capability."""
        return self.name.lower()


_ROLES: Final = {role.word: role for role in Role}

_NEEDED: Final[Mapping[str, Role | None]] = {
    "/proto.AdminService/ListKeys": Role.VIEWER,
    "/proto.AdminService/GetStatus": Role.VIEWER,
    "/proto.AdminService/GenerateNewKeys": Role.OPERATOR,
    "/proto.AdminService/RemoveKey": Role.ADMIN,
    # A probe learns only that the port answers; that it comes from the tailnet is checked all the same.
    "/grpc.health.v1.Health/Check": None,
    "/grpc.health.v1.Health/List": None,
    "/grpc.health.v1.Health/Watch": None,
}


class _Grant(msgspec.Struct, frozen=True, kw_only=True):
    roles: list[str]


def needed_role(method: str) -> Role | None:
    """Give the role that a method needs, None where a known caller is enough.

    A method that nobody has thought about needs the highest.

    Args:
        method: the full name on the wire, ``/package.Service/Method``.
    """
    return _NEEDED.get(method, Role.ADMIN)


def granted_role(values: Any) -> Role | None:
    """Give the highest role among a capability's values.

    The values are written by hand in the tailnet's policy. One that is not ``{"roles": [strings]}`` grants
    nothing, and takes nothing from the others; an unknown role name grants nothing either.

    Args:
        values: what whois gives for the capability, a list of JSON values.
    """
    if not isinstance(values, list | tuple):
        return None
    names: set[str] = set()
    for value in values:
        try:
            names.update(msgspec.convert(value, _Grant).roles)
        except msgspec.ValidationError:
            continue
    return max((_ROLES[name] for name in names if name in _ROLES), default=None)


def role_of(identity: Identity, *, access: str, capability: str) -> Role | None:
    """Give what a caller may do.

    Args:
        identity: the caller.
        access: one of ``ACCESS_MODES``.
        capability: the capability's name, for ``grant``.
    """
    if access == "acl":
        return Role.ADMIN
    return granted_role(identity.capabilities.get(capability))


def admit(identity: Identity, method: str, *, access: str, capability: str) -> None:
    """Check that a caller may call a method.

    Args:
        identity: the caller.
        method: the full name on the wire.
        access: one of ``ACCESS_MODES``.
        capability: the capability's name, for ``grant``.

    Raises:
        ExpiredCallerError: the node's key has expired.
        SharedCallerError: the node is shared in from another tailnet; in no mode may it manage keys.
        AccessError: the caller's role is none, or too low.
    """
    if identity.expired:
        raise ExpiredCallerError("the key of your node has expired: log in to the tailnet again")
    if identity.shared:
        raise SharedCallerError(
            "your node is shared in from another tailnet; only nodes of this tailnet manage keys"
        )
    needed = needed_role(method)
    if needed is None:
        return
    held = role_of(identity, access=access, capability=capability)
    if held is None or held < needed:
        raise AccessError(
            f"this needs the role {needed.word}: a grant in the tailnet's policy gives it, "
            f'by the capability {capability} with {{"roles": ["{needed.word}"]}}'
        )
