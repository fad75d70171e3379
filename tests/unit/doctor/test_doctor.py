"""The examination goes on, whatever servers answer."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tailbone.client.issuer import Issuer
from tailbone.config.load import load
from tailbone.config.model import Config
from tailbone.doctor import doctor
from tailbone.doctor.doctor import examine
from tailbone.doctor.targets import TARGETS
from tailbone.process.log import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@asynccontextmanager
async def serving(answer: Callable[[asyncio.StreamWriter], Any]) -> AsyncIterator[str]:
    """Answer every request; yields the URL."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answer(writer)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"token": "a.b.c"},
        {"claims": [1]},
        {"claims": {"sub": "user:1", "exp": 1}},
        {"claims": {"iss": "x", "sub": "user:1", "exp": "z"}},
        {"claims": {"iss": "https://[", "sub": "user:1", "exp": 1}},
    ],
    ids=str,
)
async def test_a_server_that_is_not_an_issuer_is_a_finding(
    body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other checks go on, and nothing is taken from its answer."""
    text = json.dumps(body).encode()

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)

    async with serving(answer) as url:
        monkeypatch.setattr(doctor, "_CONTROL_URL", url)
        report = await examine(Config(), TARGETS["vault"], audience="", server=Issuer(url), log=get_logger())
    [found] = [finding for finding in report.findings if finding.check == "server"]
    assert found.level == "error"
    assert f"{url} did not answer as a tailbone issuer does" in found.text


async def test_an_answer_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends a header line now and then has one limit for all of them."""
    monkeypatch.setattr(doctor, "_ANSWER_S", 0.5)
    ended = asyncio.Event()

    async def drip(writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                writer.write(b"X: y\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            ended.set()

    async with serving(drip) as url:
        monkeypatch.setattr(doctor, "_CONTROL_URL", url)
        [found] = await doctor._check_clocks(Config(), None)
        await asyncio.wait_for(ended.wait(), 10)
    assert (found.level, found.check) == ("warning", "clock")
    assert f"the clock of the control server ({url}) cannot be read (TimeoutError)" in found.text


async def test_a_clock_that_cannot_be_read_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no server, or its answer has no Date."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    async with serving(answer) as url:
        monkeypatch.setattr(doctor, "_CONTROL_URL", url)
        [dateless] = await doctor._check_clocks(Config(), None)
    monkeypatch.setattr(doctor, "_CONTROL_URL", "http://127.0.0.1:9")
    [unreachable] = await doctor._check_clocks(Config(), None)
    assert dateless.text.endswith("cannot be read (no Date)")
    assert unreachable.text.endswith("cannot be read (ConnectError)")


@pytest.mark.parametrize(
    ("name", "section", "profile", "wins"),
    [
        ("x", "profile x", "role_arn = arn:aws:iam::1:role/x\nsource_profile = y", True),
        ("", "default", "role_arn = arn:aws:iam::1:role/x\ncredential_source = Environment", True),
        ("x", "profile x", "role_arn = arn:aws:iam::1:role/x\nweb_identity_token_file = /x", False),
        ("x", "profile x", "region = eu-north-1\ns3 =\n  max_concurrent_requests = 5", False),
        ("", "profile x", "role_arn = arn:aws:iam::1:role/x", False),
        ("x", "x", "no section or value", True),
    ],
)
def test_a_role_in_the_aws_profile(name: str, section: str, profile: str, wins: bool, tmp_path: Path) -> None:
    """Botocore assumes the role of the profile before it reads the token's file."""
    config, credentials = tmp_path / "config", tmp_path / "credentials"
    config.write_text(f"[{section}]\n{profile}\n")
    environ = {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
    for profiles in {"AWS_PROFILE": name}, {"AWS_PROFILE": "other", "AWS_DEFAULT_PROFILE": name or "default"}:
        found = doctor._check_aws_profile({**environ, **profiles})
        assert [finding.level for finding in found] == ["warning"] * wins


async def test_an_issuer_that_is_refused_is_not_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cloud can fetch documents from this machine, so what is pasted has a placeholder."""
    monkeypatch.setattr(doctor, "_CONTROL_URL", "http://127.0.0.1:1")
    config = load({"keys.issuer": "http://127.0.0.1:1"}, environ={})
    for name, local in (("aws", False), ("snowflake", False), ("kubernetes", False), ("vault", True)):
        report = await examine(
            config, TARGETS[name], audience="", server=Issuer("http://127.0.0.1:1"), log=get_logger()
        )
        text = "".join(snippet.text for snippet in report.snippets)
        assert ("127.0.0.1:1" in text.replace("--issuer-url http://127.0.0.1:1", "")) is local
        assert ("YOUR_ISSUER_HOST" in text) is not local
