"""The number of file descriptors that a server needs."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Final

from tailbone.config.checks import TAILNET
from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from tailbone.config.model import Config

CONNECTIONS_OUTSIDE: Final = 64
"""How many connections a port outside the tailnet has at a time."""

_BASE: Final = 64
"""An idle server has 27 open. The rest is for its keys, the bucket and other callers."""

_PER_CONNECTION: Final = 2
"""The two ends of the Unix socket between bridge and server; the tailnet's end is not a descriptor."""

_MIN_SHARE: Final = 16


def descriptors_needed(config: Config) -> int:
    """Return how many descriptors are enough while one address has all the connections that it may have."""
    share = max(config.server.max_connections // 4, _MIN_SHARE)
    outside = sum(
        binding not in ("", TAILNET)
        for binding in (config.server.probe_binding, config.server.metrics_binding)
    )
    # Further ones are accepted before the oldest are ended.
    return _BASE + _PER_CONNECTION * share * len(config.components) + 2 * CONNECTIONS_OUTSIDE * outside


def check_descriptors(config: Config) -> None:
    """Check that one caller cannot use up this process's file descriptors.

    Raises:
        ConfigError: one caller could; the message says how many are needed.
    """
    # The Go runtime raises the soft limit to the hard one.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = descriptors_needed(config)
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise ConfigError(
            f"server.maxConnections ({config.origin('server.maxConnections')}): "
            f"{config.server.max_connections} needs at least {needed} file descriptors, "
            f"and the hard limit is {limit}: raise it (ulimit -Hn, LimitNOFILE=) or lower the setting"
        )
