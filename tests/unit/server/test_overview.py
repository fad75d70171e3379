"""What the page shows, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tailbone.errors import Problem
from tailbone.keys.listing import KeyInfo
from tailbone.server.overview import key_line

if TYPE_CHECKING:
    from conftest import Running, World


@pytest.mark.parametrize("accept", ["application/json", "text/plain, Application/JSON;q=0.5"])
async def test_json(running: Running, world: World, accept: str) -> None:
    """The same facts, for programs."""
    world.keys = [
        KeyInfo(
            key_id="tb-1795518000",
            algorithm="RS256",
            created_at=1795518000,
            state="active",
            next_change=("retires", 1795604630.5),
            fault="secret",
        )
    ]
    world.notes = [Problem("jwks_stale", "secret")]
    answer = await running.ask(f"GET / HTTP/1.1\r\nHost: tailbone\r\nAccept: {accept}\r\n\r\n".encode())
    assert (answer.status, answer.fields["Content-Type"]) == (200, "application/json")
    assert answer.fields["Cache-Control"] == "no-store"
    said = answer.json
    whoami = await running.ask(b"GET /whoami HTTP/1.1\r\nHost: tailbone\r\n\r\n")
    assert said["caller"] == whoami.json
    assert [(offer["audience"], offer["lifetime_s"]) for offer in said["offers"]] == [
        (None, 1200),
        ("sts.example", 1200),
    ]
    assert said["offers"][1]["claims"]["aud"] == "sts.example"
    assert {name: said[name] for name in said.keys() - {"caller", "offers"}} == {
        "issuer": "https://issuer.example",
        "version": "1.2.3",
        "keys": [
            {
                "key_id": "tb-1795518000",
                "algorithm": "RS256",
                "state": "active",
                "created_at": 1795518000,
                "next_change": "retires",
                "next_change_at": 1795604630,
            }
        ],
        "state": {"ready": True, "reasons": [], "notes": ["jwks_stale"]},
        "jwks": "/.well-known/jwks.json",
        "discovery": "/.well-known/openid-configuration",
        "audit": None,
    }


def test_a_foreign_key() -> None:
    """Its state in the JWKS says nothing about it, and its time may be beyond the calendar."""
    line = key_line(
        KeyInfo(key_id="a", algorithm="RS256", created_at=10**18, state="published", foreign=True)
    )
    assert (line.state, line.created_at, line.next_change, line.next_change_at) == ("foreign", 10**18, "", 0)
