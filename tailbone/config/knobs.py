"""Variables of tailscale's own whose bad values end the process: found here first, and named.

tailscale's ``envknob`` package parses some variables with ``strconv.ParseBool``, ``Atoi``, ``ParseUint`` and
``time.ParseDuration``, many of them while the native library is loaded, and ends the process by
``log.Fatalf`` when that fails: the whole Python process, without an exception. An empty value counts as
unset.

The lists hold what the packages linked into the native library register, in tailscale v1.102.5. They are made
by ``go list -deps`` in ``tsnet_go`` with the build's tags, and a search of those files for calls of
``envknob.Bool``, ``LookupInt``, ``RegisterDuration`` and the like; ``tests/unit/test_config_knobs.py`` makes
them anew, and fails when another version of tailscale has others.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tailbone.config.durations import parse_nanoseconds
from tailbone.errors import ConfigError
from tailbone.text import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

BOOLEANS = frozenset(
    """
    DERP_DEBUG_LOGS DERP_PROBER_DEBUG_LOGS IN_TS_TEST TAILSCALE_USE_WIP_CODE TSNET_FORCE_LOGIN
    TS_ALLOW_ADMIN_CONSOLE_REMOTE_UPDATE TS_ALLOW_SELF_INGRESS TS_ASSUME_NETWORK_UP_FOR_TEST
    TS_DEBUG_ACME TS_DEBUG_ACME_FORCE_RENEWAL TS_DEBUG_ALWAYS_USE_DERP TS_DEBUG_CONNECT_FAILURES
    TS_DEBUG_CRASH_ON_UNEXPECTED TS_DEBUG_DERP TS_DEBUG_DERP_WS_CLIENT
    TS_DEBUG_DISABLE_LIKELY_HOME_ROUTER_IP_SELF TS_DEBUG_DISABLE_UDP_GRO TS_DEBUG_DISABLE_UDP_GSO
    TS_DEBUG_DISCO TS_DEBUG_DNS_CACHE TS_DEBUG_DNS_FORWARD_SEND TS_DEBUG_DNS_FORWARD_USE_ROUTES
    TS_DEBUG_ENABLE_PMTUD TS_DEBUG_ENABLE_SILENT_DISCO TS_DEBUG_EXIT_NODE_DNS_NET_PKG
    TS_DEBUG_FORCE_ALL_IPV6_ENDPOINTS TS_DEBUG_FORCE_CLIENT_SIDE_REACHABILITY_ROUTECHECK
    TS_DEBUG_FORCE_H1_LOGS TS_DEBUG_LOG_TIME TS_DEBUG_MAGICSOCK_BIND_SOCKET TS_DEBUG_MAGICSOCK_PEERMAP
    TS_DEBUG_MAGIC_DNS_DUAL_STACK TS_DEBUG_NETCHECK TS_DEBUG_NETLINK TS_DEBUG_NETSTACK
    TS_DEBUG_NEVER_DIRECT_UDP TS_DEBUG_NOISE_DIAL TS_DEBUG_OMIT_LOCAL_ADDRS TS_DEBUG_PANIC_MACHINE_KEY
    TS_DEBUG_PATCHIFY_PEER TS_DEBUG_PATCHIFY_PEER_MISS TS_DEBUG_PERMIT_HTTP_C2N TS_DEBUG_PMTUD
    TS_DEBUG_PREFER_IPV6_USERDIAL TS_DEBUG_PROFILES TS_DEBUG_PROXY_DNS TS_DEBUG_RAW_DISCO
    TS_DEBUG_RAW_WGLOG TS_DEBUG_REGISTER TS_DEBUG_RESTUN_STOP_ON_IDLE TS_DEBUG_ROUTECHECK
    TS_DEBUG_SEND_CALLME_UNKNOWN_PEER TS_DEBUG_SSH_IGNORE_TAILNET_POLICY TS_DEBUG_STRIP_CAPS
    TS_DEBUG_STRIP_ENDPOINTS TS_DEBUG_STRIP_HOME_DERP TS_DEBUG_TLS_DIAL TS_DEBUG_USE_DERP_HTTP
    TS_DEBUG_WHOIS TS_DERP_DISABLE_RTT_STATS TS_DISABLE_PORTMAPPER TS_DISABLE_SSH_SERVER
    TS_DISABLE_TAILDROP TS_DISABLE_UPNP TS_DNS_FORWARD_SKIP_TCP_RETRY TS_ENABLE_RAW_DISCO
    TS_FORCE_LINUX_BIND_TO_DEVICE TS_FORCE_NOISE_443 TS_NO_LOGS_NO_SUPPORT TS_PANIC_IF_HIT_MAIN_CONTROL
    TS_PLEASE_PANIC TS_TUN_DISABLE_TCP_GRO TS_TUN_DISABLE_UDP_GRO TS_UNSAFE_SKIP_NKS_VERIFICATION
    TS_USE_CACHED_NETMAP TS_USE_CONTROL_DIAL_PLAN
    """.split()  # noqa: SIM905
)
INTEGERS = frozenset(
    """
    TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH TS_DEBUG_MAGICSOCK_RING_BUFFER_MAX_SIZE_BYTES TS_DEBUG_MAP
    TS_DEBUG_NETSTACK_LOOPBACK_PORT
    """.split()  # noqa: SIM905
)
UNSIGNED_32_BIT = frozenset({"TS_DEBUG_MTU"})
DURATIONS = frozenset(
    {"TS_DISCO_PONG_IPV4_DELAY", "TS_NETSTACK_KEEPALIVE_IDLE", "TS_NETSTACK_KEEPALIVE_INTERVAL"}
)

# strconv.ParseBool, to the letter.
_GO_BOOLEANS = frozenset("1 t T TRUE true True 0 f F FALSE false False".split())  # noqa: SIM905


def check_tailscale_environment(environ: Mapping[str, str]) -> None:
    """Refuse variables that would end the process once the native library is loaded.

    Args:
        environ: the environment that Go will see: that of the process's start.

    Raises:
        ConfigError: a variable cannot be parsed; the message names it and what is allowed.
    """
    for variable in sorted(environ):
        value = environ[variable]
        allowed = value and _refused(variable, value)
        if allowed:
            raise ConfigError(
                f"variable {variable}: tailscale would end the process over {quote(value)}; "
                f"allowed: {allowed}"
            )


def _refused(variable: str, value: str) -> str:
    """What is allowed, where *value* is not; else nothing."""
    if variable in BOOLEANS and value not in _GO_BOOLEANS:
        return "true, false, 1, 0"
    if variable in INTEGERS and not _is_integer(value, -(1 << 63), (1 << 63) - 1):
        return "a whole number"
    # ParseUint takes no sign.
    if variable in UNSIGNED_32_BIT and (value[0] in "+-" or not _is_integer(value, 0, (1 << 32) - 1)):
        return "0 to 4294967295"
    if variable in DURATIONS and not _is_duration(value):
        return "a duration such as 20m, 1h30m or 500ms"
    return ""


def _is_integer(text: str, least: int, most: int) -> bool:
    return bool(re.fullmatch(r"[+-]?[0-9]{1,400}", text)) and least <= int(text) <= most


def _is_duration(text: str) -> bool:
    try:
        parse_nanoseconds(text)
    except ValueError:
        return False
    return True
