"""Access: which caller may call which method, by the settings and the caller's identity. Pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from tailbone.errors import AccessError, ExpiredCallerError, SharedCallerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailbone.token.identity import Identity


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
    # A probe learns only that the port answers. It, too, must come from a known caller.
    "/grpc.health.v1.Health/Check": None,
    "/grpc.health.v1.Health/List": None,
    "/grpc.health.v1.Health/Watch": None,
}


class _Grant(msgspec.Struct, frozen=True, kw_only=True):
    roles: list[str]


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Who may call what, as the settings say.

    Attributes:
        mode: ``acl``: every caller that can reach the port may do everything; ``grant``: callers have the
            roles that the tailnet's policy grants them.
        capability: the name of the capability that holds roles, for ``grant``.
    """

    mode: Literal["acl", "grant"]
    capability: str

    def role_of(self, caller: Identity) -> Role | None:
        """Return what a caller may do; None for nothing."""
        if self.mode == "acl":
            return Role.ADMIN
        return granted_role(caller.capabilities.get(self.capability))

    def admit(self, caller: Identity, method: str) -> None:
        """Check that a caller may call a method.

        Args:
            caller: who calls.
            method: the full name on the wire, ``/package.Service/Method``.

        Raises:
            ExpiredCallerError: the node's key has expired.
            SharedCallerError: the node is shared in from another tailnet, which rules it out in both modes.
            AccessError: the caller has no role, or too low a one.
        """
        if caller.expired:
            raise ExpiredCallerError("the key of your node has expired: log in to the tailnet again")
        if caller.shared:
            raise SharedCallerError(
                "your node is shared in from another tailnet; only nodes of this tailnet manage keys"
            )
        needed = needed_role(method)
        if needed is None:
            return
        held = self.role_of(caller)
        if held is None or held < needed:
            raise AccessError(
                f"this needs the role {needed.word}: a grant in the tailnet's policy gives it, "
                f'by the capability {self.capability} with {{"roles": ["{needed.word}"]}}'
            )


def needed_role(method: str) -> Role | None:
    """Return the role that a method needs; None where a known caller is enough.

    A method that is not in the table needs the highest role.

    Args:
        method: the full name on the wire, ``/package.Service/Method``.
    """
    return _NEEDED.get(method, Role.ADMIN)


def granted_role(values: Any) -> Role | None:
    """Return the highest role among a capability's values.

    The values are written by hand in the tailnet's policy. One that is not ``{"roles": [strings]}`` grants
    nothing and leaves the others valid; an unknown role name grants nothing either.

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
