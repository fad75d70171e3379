"""Access: which caller may call which method, by the settings and the caller's identity. Pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from tailbone.errors import AccessError
from tailbone.token.grants import read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailbone.token.grants import Void
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
    "/proto.AdminService/Explain": Role.VIEWER,
    "/proto.AdminService/GenerateNewKeys": Role.OPERATOR,
    "/proto.AdminService/RemoveKey": Role.ADMIN,
    # A probe learns only that the port answers. It, too, must come from a known caller.
    "/grpc.health.v1.Health/Check": None,
    "/grpc.health.v1.Health/Watch": None,
}


class _Object(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule as the policy spells it."""

    roles: Annotated[tuple[Literal["viewer", "operator", "admin"], ...], msgspec.Meta(min_length=1)]


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
        return max(self.granted(caller)[0], default=None)

    def roles_of(self, caller: Identity) -> list[str]:
        """Return the names of the roles that a caller has, the lowest first."""
        role = None if caller.expired or caller.shared else self.role_of(caller)
        return [held.word for held in Role if role is not None and held <= role]

    def granted(self, caller: Identity) -> tuple[tuple[Role, ...], tuple[Void, ...]]:
        """Return the roles that the tailnet's policy grants a caller, and the void rules among them."""
        return read(self.capability, caller.capabilities.get(self.capability, ()), parse_role)

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
        caller.check_membership()
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


def is_change(method: str) -> bool:
    """Return whether a method changes keys."""
    return needed_role(method) in (Role.OPERATOR, Role.ADMIN)


def parse_role(value: Any) -> Role:
    """Decode one value of the admin capability, ``{"roles": ["viewer"]}``; return its highest role.

    Raises:
        ValueError: the rule is void; the text says why.
    """
    return max(_ROLES[word] for word in msgspec.convert(value, _Object).roles)
