"""The page for people, from nodes of a tailnet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.tailnet import EVERYTHING
from harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.servers import Server
    from harness.tailnet import Caller, Tailnet


def test_each_node_sees_itself(
    server: Callable[..., Server], caller: Callable[..., Caller], tailnet: Tailnet
) -> None:
    """A person, a tagged node and a node of another tailnet see who they are, and what they may request."""
    name = server("--audience", "vault").name
    person, robot = caller("dev@example.com", hostname="desk").to(name), caller("tag:ci").to(name)
    guest = caller("dev@example.com", shared=True).to(name)
    until(lambda: person.get("/_readyz").status == 200, "ready")
    kid = person.get("/.well-known/jwks.json").json["keys"][0]["kid"]
    page = person.get("/", headers={"Sec-Fetch-Site": "none", "Sec-Fetch-Dest": "document"})
    assert page.status == 200
    text = page.body.decode()
    for shown in (
        "<h1>You are <bdi>dev@example.com</bdi></h1>",
        f"<code>user:{tailnet.known('desk')['user_id']}</code>",
        "<bdi>desk.dev.tailnet.test</bdi>",
        "<code>vault</code>",
        f"http://{person.host}/issue?audience=vault",
        f"<code>{kid}</code>",
        "can be issued",
    ):
        assert shown in text
    assert "<h1>You are <bdi>tag:ci</bdi></h1>" in robot.get("/").body.decode()
    said = guest.get("/", headers={"Accept": "application/json"}).json
    assert (said["caller"]["shared"], said["offers"]) == (True, [])
    assert said["caller"]["refusal"]["error"] == "shared_caller"
    assert said["caller"] == guest.get("/whoami").json


def test_only_admins_by_grant_see_the_audit(
    server: Callable[..., Server], caller: Callable[..., Caller], tailnet: Tailnet, tmp_path: Path
) -> None:
    """Without admin.access = grant, a caller of the issuer's port is not known to be an admin."""
    file = str(tmp_path / "audit")
    for access in ("acl", "grant"):
        name = server("--audit-file", file, TB_ADMIN_ACCESS=access, hostname=f"audited-{access}").name
        admin, robot = caller().to(name), caller("tag:ci").to(name)
        until(lambda route=admin: route.get("/_readyz").status == 200, "ready")
        assert admin.issue().status == 200
        assert "audit file" not in admin.get("/").body.decode()
    roles = {"tailbone.dev/cap/admin": [{"roles": ["admin"]}]}
    tailnet.grant(EVERYTHING, {"src": ["dev@example.com"], "dst": ["*"], "app": roles})
    page = until(
        lambda: text if "audit file" in (text := admin.get("/").body.decode()) else None, "the role's grant"
    )
    assert "token issued" in page
    assert "audit file" not in robot.get("/").body.decode()
    tailnet.grant(EVERYTHING)
