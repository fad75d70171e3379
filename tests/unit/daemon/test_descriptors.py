"""The number of file descriptors that a server needs."""

from __future__ import annotations

import resource

import pytest

from tailbone.config.load import load
from tailbone.daemon.descriptors import check_descriptors, descriptors_needed
from tailbone.errors import ConfigError


@pytest.mark.parametrize(
    ("variables", "needed"),
    [
        ({}, 64 + 2 * 256 * 2),
        ({"TB_COMPONENTS": "issuer"}, 64 + 2 * 256),
        ({"TB_SERVER_MAXCONNECTIONS": "4000"}, 64 + 2 * 1000 * 2),
        ({"TB_SERVER_MAXCONNECTIONS": "1"}, 64 + 2 * 16 * 2),
        ({"TB_SERVER_METRICSBINDING": "tailnet"}, 64 + 2 * 256 * 2),
        (
            {"TB_SERVER_METRICSBINDING": "127.0.0.1:1", "TB_SERVER_PROBEBINDING": "127.0.0.1:2"},
            64 + 2 * 256 * 2 + 2 * 64 * 2,
        ),
    ],
)
def test_one_address_can_have_all_its_connections(variables: dict[str, str], needed: int) -> None:
    """On each listener a quarter of maxConnections, at least 16; each connection takes two descriptors."""
    assert descriptors_needed(load(environ=variables)) == needed


@pytest.mark.parametrize(("hard", "fails"), [(1087, True), (1088, False), (resource.RLIM_INFINITY, False)])
def test_the_hard_limit_counts(monkeypatch: pytest.MonkeyPatch, hard: int, fails: bool) -> None:
    """The Go runtime raises the soft limit to it."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, hard))
    if not fails:
        check_descriptors(load(environ={}))
        return
    with pytest.raises(ConfigError) as failure:
        check_descriptors(load(environ={}))
    assert failure.value.message == (
        "server.maxConnections (default): 1024 needs at least 1088 file descriptors, "
        "and the hard limit is 1087: raise it (ulimit -Hn, LimitNOFILE=) or lower the setting"
    )
