"""A server checks its public documents as a verifier does, and reports the outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.waiting import until
from harness.web import Page, WebServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.programs import Program
    from harness.servers import Server
    from harness.tailnet import Caller

FIELDS = {"Content-Type": "application/json", "Cache-Control": "public, max-age=1"}


def test_the_outcome_is_shown_until_it_changes(
    server: Callable[..., Server],
    caller: Callable[..., Caller],
    tailbone: Callable[..., Program],
    tmp_path: Path,
) -> None:
    """In /_readyz, in keys status and in the log; tokens are issued all the while."""
    bucket = tmp_path / "bucket"
    with WebServer() as web:
        started = server(
            TB_KEYS_ISSUER=web.url,
            TB_KEYS_BUCKET=bucket.as_uri(),
            TB_KEYS_OUTSIDECHECK="on",
            TB_KEYS_MAXAGE="1s",
        )
        node = caller()
        route, admin = node.to(started.name), node.to(started.name, 50051)
        host, _, port = admin.address.rpartition(":")

        def status() -> str:
            return "\n".join(tailbone("keys", "status", "--host", host, "--port", port).out)

        missing = f"outside: {web.url}/.well-known/openid-configuration answers 404"
        until(lambda: missing in "".join(route.get("/_readyz").json["notes"]), "the first check")
        assert missing in status()
        assert route.issue().status == 200
        for document in (bucket / ".well-known").glob("[!.]*"):
            web.pages[f"/.well-known/{document.name}"] = Page(document.read_bytes(), FIELDS)
        until(lambda: "outside: ok" in route.get("/_readyz").json["notes"], "the next check")
        assert "outside: ok" in status()
    seen = [record for record in started.program.records() if "seen from outside" in record["event"]]
    assert [record["level"] for record in seen][:2] == ["warn", "info"]


def test_a_document_of_another_issuer_is_an_error_everywhere(
    server: Callable[..., Server],
    caller: Callable[..., Caller],
    tailbone: Callable[..., Program],
    tmp_path: Path,
) -> None:
    """/_readyz, keys status and the log name both issuers; /_readyz does not say where the bucket is."""
    document = tmp_path / "bucket" / ".well-known" / "openid-configuration"
    document.parent.mkdir(parents=True)
    document.write_text('{"issuer":"https://other.example"}')
    started = server(
        TB_KEYS_ISSUER="https://issuer.example",
        TB_KEYS_BUCKET=(tmp_path / "bucket").as_uri(),
        TB_KEYS_OUTSIDECHECK="off",
    )
    node = caller()
    route, admin = node.to(started.name), node.to(started.name, 50051)
    host, _, port = admin.address.rpartition(":")
    until(lambda: route.get("/_readyz").json["notes"], "the note")
    readiness = route.get("/_readyz")
    status = "\n".join(tailbone("keys", "status", "--host", host, "--port", port).out)
    [line] = [str(record) for record in started.program.records() if "other.example" in str(record)]
    for text in readiness.body.decode(), status, line:
        assert "https://other.example" in text
        assert "https://issuer.example" in text
    assert str(tmp_path) not in readiness.body.decode()
    assert (readiness.status, route.issue().status) == (200, 200)
    assert document.read_text() == '{"issuer":"https://other.example"}'
