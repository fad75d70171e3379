"""What changes in the tailnet counts at once, while tokens are asked for."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest
from harness.tailnet import EVERYTHING
from harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.servers import Server
    from harness.tailnet import Caller, Tailnet, Way


@pytest.fixture(scope="module")
def issuer(shared_server: Callable[..., Server]) -> Server:
    """A server at its defaults."""
    return shared_server()


def outcome(connection: http.client.HTTPConnection, host: str) -> str:
    """Ask for a token on a connection that is there already: a status with its code, or ``gone``."""
    try:
        connection.request("POST", "/issue", headers={"Host": host})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return "gone"
    return f"{response.status} {body.decode()}"


def kept(way: Way, timeout_s: float = 2.0) -> http.client.HTTPConnection:
    """A connection to be kept over many requests."""
    return http.client.HTTPConnection(way.address, timeout=timeout_s)


@pytest.mark.parametrize("fault", ["expire_node", "remove_node"])
def test_node_expires_or_is_removed(
    issuer: Server, caller: Callable[..., Caller], tailnet: Tailnet, fault: str
) -> None:
    """Once the server knows of it, the node gets no token more, on an old connection or a new one."""
    leaving, staying = caller(), caller("tag:ci")
    way = leaving.to(issuer.name)
    connection = kept(way)
    assert outcome(connection, way.host).startswith("200 ")
    tailnet.do(fault, node=leaving.name)
    until(lambda: not outcome(connection, way.host).startswith("200 "), "no further token", timeout_s=15)
    connection.close()
    fresh = kept(way, timeout_s=1.0)
    assert not outcome(fresh, way.host).startswith("200 ")
    fresh.close()
    assert staying.to(issuer.name).issue().status == 200


def test_shared_in_node(issuer: Server, caller: Callable[..., Caller], tailnet: Tailnet) -> None:
    """A node shared in from another tailnet is refused from the next request on."""
    node = caller()
    way = node.to(issuer.name)
    connection = kept(way)
    assert outcome(connection, way.host).startswith("200 ")
    tailnet.do("share_node", node=node.name, shared=True)
    until(lambda: '"shared_caller"' in outcome(connection, way.host), "403 shared_caller")
    assert way.issue().status == 403
    tailnet.do("share_node", node=node.name, shared=False)
    until(lambda: outcome(connection, way.host).startswith("200 "), "a token again")
    connection.close()


def test_shared_in_node_allowed(
    server: Callable[..., Server], caller: Callable[..., Caller], tmp_path: Path
) -> None:
    """With issuer.allowShared it gets a token."""
    settings = tmp_path / "settings.toml"
    settings.write_text("[issuer]\nallowShared = true\n")
    way = caller(shared=True).to(server("--config", str(settings)).name)
    assert way.issue().status == 200


def test_grants_cut_a_caller_off(issuer: Server, caller: Callable[..., Caller], tailnet: Tailnet) -> None:
    """A caller that the policy no longer lets through gets nothing; the others do."""
    out, still = caller("out@example.com").to(issuer.name), caller("tag:ci").to(issuer.name)
    assert out.issue().status == 200
    try:
        tailnet.grant({"src": ["tag:ci"], "dst": ["*"], "ip": ["*"]})

        def cut_off() -> bool:
            connection = kept(out, timeout_s=0.5)
            try:
                return outcome(connection, out.host) == "gone"
            finally:
                connection.close()

        until(cut_off, "no connection")
        assert still.issue().status == 200
    finally:
        tailnet.grant(EVERYTHING)


def test_control_outage(issuer: Server, caller: Callable[..., Caller], tailnet: Tailnet) -> None:
    """While the control server is away tokens go on, also on new connections; afterwards new nodes join."""
    way = caller().to(issuer.name)
    connection = kept(way)
    assert outcome(connection, way.host).startswith("200 ")
    tailnet.do("pause_control")
    try:
        tailnet.do("drop_control")
        for _ in range(20):
            assert outcome(connection, way.host).startswith("200 ")
            assert way.issue().status == 200
        ready = way.get("/_readyz")
        assert (ready.status, ready.json["ready"]) == (200, True)
    finally:
        tailnet.do("resume_control")
    connection.close()
    assert way.issue().status == 200
    late = caller("late@example.com").to(issuer.name)
    assert until(
        lambda: late.issue().status == 200, "a token for a node that joined afterwards", timeout_s=20
    )


def test_server_is_renamed(
    server: Callable[..., Server], caller: Callable[..., Caller], tailnet: Tailnet
) -> None:
    """An administrator gives its node another name: from then on that one means it, the old one no more."""
    started = server()
    address = started.program.event("started")["addresses"][0]
    way, old = caller().to(address), started.name
    new = f"{old}-renamed"
    assert way.issue(headers={"Host": old}).status == 200
    assert way.issue(headers={"Host": new}).status == 421
    tailnet.do("rename_node", node=old, name=new)
    until(lambda: way.issue(headers={"Host": new}).status == 200, "its new name means it")
    assert way.issue(headers={"Host": old}).status == 421
    full = started.program.event("the node has another name or address")["now"]
    assert full.partition(".")[0] == new
    assert way.issue(headers={"Host": full}).status == 200


def test_server_is_deleted(server: Callable[..., Server], tailnet: Tailnet) -> None:
    """A control server that no longer knows the node (404) is one warning at once."""
    started = server()
    tailnet.do("forget_node", node=started.name)
    deleted = (
        "the control server has deleted this node: no caller is served until it joins again, "
        "at a restart with a valid auth key"
    )
    until(lambda: started.events(deleted), "a line about it")
    assert started.events(deleted)[0]["level"] == "warn"
    assert started.program.stop() == 0
    assert len(started.events(deleted)) == 1


def test_server_is_removed(
    server: Callable[..., Server], caller: Callable[..., Caller], tailnet: Tailnet
) -> None:
    """A server that was thrown out says so in its log, and ends in order when it is asked to."""
    started = server()
    way = caller().to(started.name)
    assert way.issue().status == 200
    tailnet.do("expire_node", node=started.name)
    gone = (
        "the node is no longer in its tailnet: no caller is served until it is admitted again, "
        "or logs in at the next start"
    )
    until(lambda: started.events(gone), "a line about it")
    assert started.events(gone)[0]["level"] == "warn"
    assert started.program.stop() == 0
    assert len(started.events(gone)) == 1
