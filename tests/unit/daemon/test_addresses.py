"""Which addresses the components listen on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tailbone.config.load import load
from tailbone.daemon.addresses import check_ports, listen_addresses
from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from tailbone.config.model import Config

OWN = ("100.64.0.2", "fd7a:115c:a1e0:ab12::2")


def config(**variables: str) -> Config:
    return load(environ=variables)


@pytest.mark.parametrize("binding", ["", "auto", "0.0.0.0", "::"])
def test_every_address(binding: str) -> None:
    """These bindings mean all of the node's own addresses, never the host's."""
    assert listen_addresses(config(TB_SERVER_BINDING=binding), OWN) == {"issuer": (), "admin": ()}


@pytest.mark.parametrize(
    ("binding", "address"),
    [
        ("100.64.0.2", "100.64.0.2"),
        ("fd7a:115c:a1e0:ab12::2", "fd7a:115c:a1e0:ab12::2"),
        ("FD7A:115C:A1E0:AB12:0:0:0:0002", "fd7a:115c:a1e0:ab12::2"),
        ("fd7a:115c:a1e0:ab12:0000:0000:0000:0002", "fd7a:115c:a1e0:ab12::2"),
    ],
)
def test_one_address(binding: str, address: str) -> None:
    """A binding is compared as an address, and returned in the node's spelling."""
    assert listen_addresses(config(TB_SERVER_BINDING=binding), OWN)["issuer"] == (address,)
    assert listen_addresses(config(TB_ADMIN_BINDING=binding), OWN)["admin"] == (address,)


@pytest.mark.parametrize("binding", ["127.0.0.1", "192.0.2.1", "100.64.0.3", "::1"])
def test_an_address_of_another_node_is_refused(binding: str) -> None:
    """The error names the setting, where it was set, and what is allowed."""
    with pytest.raises(ConfigError) as failure:
        listen_addresses(config(TB_ADMIN_BINDING=binding), OWN)
    assert failure.value.message == (
        f"admin.binding (variable TB_ADMIN_BINDING): {binding!r} is not an address of this node; "
        "allowed: auto, 100.64.0.2, fd7a:115c:a1e0:ab12::2"
    )


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"TB_SERVER_BINDING": "100.64.0.2"},
        {"TB_ADMIN_BINDING": "fd7a:115c:a1e0:ab12::2"},
        {"TB_SERVER_BINDING": "FD7A:115c:a1e0:ab12:0::2", "TB_ADMIN_BINDING": "fd7a:115c:a1e0:ab12::2"},
    ],
)
def test_one_port_for_both_components_is_refused(where: dict[str, str]) -> None:
    """The error names the setting and where it was set."""
    with pytest.raises(ConfigError) as failure:
        check_ports(config(TB_SERVER_PORT="50051", **where))
    assert failure.value.message.startswith("server.port (variable TB_SERVER_PORT): issuer and admin API ")
    with pytest.raises(ConfigError, match=r"^admin\.port \(variable TB_ADMIN_PORT\): "):
        check_ports(config(TB_ADMIN_PORT="80", **where))


def test_one_port_is_allowed_on_two_addresses_or_for_one_component() -> None:
    two = {"TB_SERVER_BINDING": "100.64.0.2", "TB_ADMIN_BINDING": "fd7a:115c:a1e0:ab12::2"}
    check_ports(config(TB_ADMIN_PORT="80", **two))
    check_ports(config(TB_ADMIN_PORT="80", TB_COMPONENTS="issuer"))
    check_ports(config())


def test_only_components_that_run_count() -> None:
    """The binding of a component that does not run is ignored."""
    wanted = config(TB_COMPONENTS="issuer", TB_ADMIN_BINDING="192.0.2.1")
    assert listen_addresses(wanted, OWN) == {"issuer": ()}
