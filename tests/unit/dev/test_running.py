"""A running dev, without a tailnet."""

from __future__ import annotations

import socket
import tempfile
from typing import TYPE_CHECKING, Any, cast

import pytest
from harness.log import Lines

from tailbone.config.load import load
from tailbone.dev.flags import DevSettings, Endpoint
from tailbone.dev.running import Dev, DevInfo, QuietLog
from tailbone.errors import AddressInUseError, ConfigError, TailnetError
from tailbone.process.signals import Stop

if TYPE_CHECKING:
    from pathlib import Path

    from tailbone.process.log import Logger

FREE = Endpoint("127.0.0.1", 0)


def test_the_environment_of_a_command() -> None:
    """It has the first caller's URL, the JWKS, and the admin API in both forms."""
    info = DevInfo(
        tailnet="dev.tailnet.test",
        control_url="http://127.0.0.1:1",
        auth_keys={"tag:ci": "k", "a@b": "l"},
        callers={"tag:ci": "http://[::1]:2", "a@b": "http://[::1]:3"},
        jwks_url="http://127.0.0.1:4/.well-known/jwks.json",
        admin="[::1]:5",
    )
    assert info.environment() == {
        "TAILBONE_ISSUE_URL": "http://[::1]:2/issue",
        "TAILBONE_JWKS_URL": "http://127.0.0.1:4/.well-known/jwks.json",
        "TAILBONE_ADMIN": "[::1]:5",
        "TB_ADMIN_CLIENT_HOST": "::1",
        "TB_ADMIN_CLIENT_PORT": "5",
    }


def test_a_quiet_log_has_no_info_lines() -> None:
    """Warnings and errors are always logged."""
    lines = Lines()
    log = QuietLog(cast("Logger", lines), quiet=True)
    log.info("one")
    log.warning("two")
    log.error("three")
    log.quiet = False
    log.info("four")
    assert lines.events == [("warning", "two"), ("error", "three"), ("info", "four")]


async def start(**settings: Any) -> None:
    fields = {"listen": FREE, "jwks_listen": FREE, "admin_listen": FREE}
    async with Dev(load({}, environ={}), DevSettings(**fields | settings), Stop()) as dev:
        await dev.start()


async def test_a_port_in_use_is_an_error() -> None:
    """It is found before anything starts, and the message names it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = Endpoint(*taken.getsockname())
        with pytest.raises(AddressInUseError, match=f"{endpoint} is in use"):
            await start(admin_listen=endpoint)


async def test_a_port_that_is_requested_twice_is_an_error() -> None:
    """The second caller's port is the JWKS's. (Outgoing connections never get ports this low.)"""
    with pytest.raises(AddressInUseError, match=r"127\.0\.0\.1:20001 is requested twice"):
        await start(listen=Endpoint("127.0.0.1", 20000), jwks_listen=Endpoint("127.0.0.1", 20001))


async def test_a_port_above_65535_is_an_error() -> None:
    """The second caller's port would be 65536."""
    with pytest.raises(ConfigError, match="port 65536 for the last caller"):
        await start(listen=Endpoint("127.0.0.1", 65535))


async def test_a_missing_temporary_folder_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to do."""
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    with pytest.raises(TailnetError, match="set TMPDIR, or use --state-dir"):
        await start()


async def test_a_state_folder_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    """The message names the flag and the folder."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"flag --state-dir: .*/file/x cannot be used"):
        await start(state_dir=tmp_path / "file" / "x")
