"""Changes in the tailnet take effect at once, while callers request tokens."""

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
    from harness.tailnet import Caller, Route, Tailnet


@pytest.fixture(scope="module")
def issuer(shared_server: Callable[..., Server]) -> Server:
    """A server with default settings."""
    return shared_server()


def outcome(connection: http.client.HTTPConnection, host: str) -> str:
    """Request a token on an open connection; return the status with its code, or ``gone``."""
    try:
        connection.request("POST", "/issue", headers={"Host": host})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return "gone"
    return f"{response.status} {body.decode()}"


def kept(route: Route, timeout_s: float = 2.0) -> http.client.HTTPConnection:
    """Open a connection for several requests."""
    return http.client.HTTPConnection(route.address, timeout=timeout_s)


@pytest.mark.parametrize("fault", ["expire_node", "remove_node"])
def test_node_expires_or_is_removed(
    issuer: Server, caller: Callable[..., Caller], tailnet: Tailnet, fault: str
) -> None:
    """Once the server has received the change, the node gets no more tokens, on old and new connections."""
    leaving, staying = caller(), caller("tag:ci")
    route = leaving.to(issuer.name)
    connection = kept(route)
    assert outcome(connection, route.host).startswith("200 ")
    tailnet.do(fault, node=leaving.name)
    until(lambda: not outcome(connection, route.host).startswith("200 "), "no further token", timeout_s=15)
    connection.close()
    fresh = kept(route, timeout_s=1.0)
    assert not outcome(fresh, route.host).startswith("200 ")
    fresh.close()
    assert staying.to(issuer.name).issue().status == 200


def test_shared_in_node(issuer: Server, caller: Callable[..., Caller], tailnet: Tailnet) -> None:
    """A node that becomes shared in from another tailnet is refused from the next request on."""
    node = caller()
    route = node.to(issuer.name)
    connection = kept(route)
    assert outcome(connection, route.host).startswith("200 ")
    tailnet.do("share_node", node=node.name, shared=True)
    until(lambda: '"shared_caller"' in outcome(connection, route.host), "403 shared_caller")
    assert route.issue().status == 403
    tailnet.do("share_node", node=node.name, shared=False)
    until(lambda: outcome(connection, route.host).startswith("200 "), "a token again")
    connection.close()


def test_shared_in_node_allowed(
    server: Callable[..., Server], caller: Callable[..., Caller], tmp_path: Path
) -> None:
    """With issuer.allowShared, a node shared in gets a token."""
    settings = tmp_path / "settings.toml"
    settings.write_text("[issuer]\nallowShared = true\n")
    route = caller(shared=True).to(server("--config", str(settings)).name)
    assert route.issue().status == 200


def test_grants_cut_a_caller_off(issuer: Server, caller: Callable[..., Caller], tailnet: Tailnet) -> None:
    """A caller that the policy no longer allows is cut off; the others still get tokens."""
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
    """During an outage of the control server tokens are still issued, also on new connections."""
    route = caller().to(issuer.name)
    connection = kept(route)
    assert outcome(connection, route.host).startswith("200 ")
    tailnet.do("pause_control")
    try:
        tailnet.do("drop_control")
        for _ in range(20):
            assert outcome(connection, route.host).startswith("200 ")
            assert route.issue().status == 200
        ready = route.get("/_readyz")
        assert (ready.status, ready.json["ready"]) == (200, True)
    finally:
        tailnet.do("resume_control")
    connection.close()
    assert route.issue().status == 200
    late = caller("late@example.com").to(issuer.name)
    assert until(
        lambda: late.issue().status == 200, "a token for a node that joined afterwards", timeout_s=20
    )


def test_server_is_renamed(
    server: Callable[..., Server], caller: Callable[..., Caller], tailnet: Tailnet
) -> None:
    """After an administrator renames the node, only the new name is accepted as Host."""
    started = server()
    address = started.program.event("started")["addresses"][0]
    route, old = caller().to(address), started.name
    new = f"{old}-renamed"
    assert route.issue(headers={"Host": old}).status == 200
    assert route.issue(headers={"Host": new}).status == 421
    tailnet.do("rename_node", node=old, name=new)
    until(lambda: route.issue(headers={"Host": new}).status == 200, "its new name means it")
    assert route.issue(headers={"Host": old}).status == 421
    full = started.program.event("the node has another name or address")["now"]
    assert full.partition(".")[0] == new
    assert route.issue(headers={"Host": full}).status == 200


def test_server_is_deleted(server: Callable[..., Server], tailnet: Tailnet) -> None:
    """If the control server no longer knows the node (404), there is one warning at once."""
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
    """A server whose node was removed logs this, and still ends in order on a signal."""
    started = server()
    route = caller().to(started.name)
    assert route.issue().status == 200
    tailnet.do("expire_node", node=started.name)
    gone = (
        "the node is no longer in its tailnet: no caller is served until it is admitted again, "
        "or logs in at the next start"
    )
    until(lambda: started.events(gone), "a line about it")
    assert started.events(gone)[0]["level"] == "warn"
    assert started.program.stop() == 0
    assert len(started.events(gone)) == 1
