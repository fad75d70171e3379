"""The forward-auth endpoint."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import httpx
import pytest
from harness.refusals import AUDIENCE, TAG, bearer, refused

from tailbone import web
from tailbone.errors import AddressInUseError
from tailbone.forward_auth import ForwardAuth, identity_fields
from tailbone.testing import FakeIssuer
from tailbone.verify import AsyncVerifier, Claims, require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer() as running:
        yield running


@pytest.fixture
async def client(issuer: FakeIssuer) -> AsyncIterator[httpx.AsyncClient]:
    listening = web.listen("127.0.0.1", 0)
    _, port = listening.getsockname()
    async with (
        ForwardAuth(AsyncVerifier(issuer.url, AUDIENCE), require(tags=TAG), listening),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "X-1", "get"]
)
@pytest.mark.parametrize("path", ["/", "/verify", "/a/b?c=d", "//a", "/%2F%00", "/*"])
async def test_any_request_is_judged_by_its_token(
    client: httpx.AsyncClient, issuer: FakeIssuer, method: str, path: str
) -> None:
    """Proxies differ in the path of their question, and pass the client's method on."""
    headers = bearer(issuer.token(audience=AUDIENCE, as_=TAG, scope="read", groups=["a", "b,c"]))
    answer = await client.request(method, path, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    fields = {name: value for name, value in answer.headers.items() if name.startswith("x-tailbone-")}
    assert fields == {
        "x-tailbone-sub": "node:nFaketag-ci",
        "x-tailbone-user": "",
        "x-tailbone-tags": TAG,
        "x-tailbone-node": "tag-ci.fake.tailnet.test",
        "x-tailbone-node-id": "nFaketag-ci",
        "x-tailbone-groups": "a,b%2Cc",
        "x-tailbone-scope": "read",
    }
    assert (await client.request(method, path)).status_code == 401


async def test_refusals(client: httpx.AsyncClient, issuer: FakeIssuer) -> None:
    """401 and 403 as RFC 6750 asks, without a caller's identity."""
    for case in refused(issuer):
        answer = await client.get("/", headers=[*case.headers, ("X-Tailbone-User", "forged")])
        assert (answer.status_code, answer.headers.get("WWW-Authenticate")) == case[1:]
        assert not any(name.startswith("x-tailbone-") for name in answer.headers)


def test_names_cannot_break_a_field() -> None:
    """Line ends, other alphabets, commas and percent signs are encoded."""
    claims = Claims(iss="i", sub="user:1", exp=1, user="é@x\r\nA: b", groups=("50%", "a,b"))
    fields = identity_fields(claims)
    assert fields["X-Tailbone-User"] == "%C3%A9@x%0D%0AA: b"
    assert fields["X-Tailbone-Groups"] == "50%25,a%2Cb"


def test_a_port_in_use() -> None:
    """The error names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUseError, match=str(port)):
            web.listen("127.0.0.1", port)
