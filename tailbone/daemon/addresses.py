"""Choose the node's own addresses on which each component listens. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tailbone.config.model import Config

_EVERY_ADDRESS = "auto"
"""As ``config.checks.binding`` returns it; it means the node's own addresses, never the host's."""


def listen_addresses(config: Config, own: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the addresses on which each component listens.

    Args:
        config: all settings.
        own: the node's tailnet addresses.

    Returns:
        Addresses by component, as the node spells them; none means all of them.

    Raises:
        ConfigError: a binding is not one of the node's addresses; the message lists them.
    """
    settings = {
        "issuer": ("server.binding", config.server.binding),
        "admin": ("admin.binding", config.admin.binding),
    }
    return {component: _addresses(config, *settings[component], own) for component in config.components}


def check_ports(config: Config) -> None:
    """Check that the components listen on different ports or addresses.

    Raises:
        ConfigError: they would not; the message names the setting.
    """
    server, admin = config.server, config.admin
    if len(config.components) < 2 or server.port != admin.port:
        return
    everywhere = _EVERY_ADDRESS in (server.binding, admin.binding)
    if everywhere or _address(server.binding) == _address(admin.binding):
        path = "server.port" if config.is_set("server.port") else "admin.port"
        raise ConfigError(
            f"{path} ({config.origin(path)}): issuer and admin API would both listen on port {admin.port}; "
            "allowed: another port for one of them, or another address (server.binding, admin.binding)"
        )


def _addresses(config: Config, path: str, binding: str, own: Sequence[str]) -> tuple[str, ...]:
    if binding == _EVERY_ADDRESS:
        return ()
    # One IPv6 address has many spellings (RFC 5952).
    wanted = _address(binding)
    for address in own:
        if wanted is not None and _address(address) == wanted:
            return (address,)
    raise ConfigError(
        f"{path} ({config.origin(path)}): {binding!r} is not an address of this node; "
        f"allowed: auto, {', '.join(own)}"
    )


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
