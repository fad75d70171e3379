"""The issuer's and the keys' settings, as they are without any flag, variable or file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tailbone.config.model import Config
from tailbone.daemon import keys, servers

if TYPE_CHECKING:
    from tailbone.keys.settings import KeySettings
    from tailbone.token.policy import IssuerSettings


def issuer_settings(**changes: Any) -> IssuerSettings:
    """Return the default settings of the issuer, with changes."""
    return msgspec.structs.replace(servers.issuer_settings(Config()), **changes)


def key_settings(**changes: Any) -> KeySettings:
    """Return the default settings of the keys, with changes."""
    return msgspec.structs.replace(keys.key_settings(Config()), **changes)
