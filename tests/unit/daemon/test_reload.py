"""The reloader: it applies good settings, and keeps the last good ones."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from harness.log import Lines
from harness.waiting import until_async

from tailbone.config.load import load
from tailbone.daemon.reload import Reloader

if TYPE_CHECKING:
    from pathlib import Path

    from tailbone.config.model import Config

FAILED = "settings not reloaded: the previous ones stay in effect"


class World:
    """A settings file, and the reloader of a server that was started with it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.log: Any = Lines()
        self.applied: list[Config] = []
        file.write_text('[keys]\nexpiry = "20m"\n')
        self.reloader = Reloader(self.load(), lambda: self.load(again=True), self.log)

    def load(self, *, again: bool = False) -> Config:
        return load(environ={}, config_file=self.file, again=again)

    async def reload(self, text: str) -> None:
        self.file.write_text(text)
        await self.reloader.reload(self.applied.append)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "settings.toml")


async def test_one_line_says_what_changed(world: World) -> None:
    """The new settings are applied as a whole."""
    await world.reload('[keys]\nexpiry = "5m"\n[issuer]\ndeny = ["tag:ci"]\n')
    assert world.log.lines == [
        (
            "info",
            "settings reloaded",
            {"changed": ("keys.expiry: 20m -> 5m", "issuer.deny:  -> tag:ci")},
        )
    ]
    [config] = world.applied
    assert (config.keys.expiry_s, config.issuer.deny) == (300.0, ("tag:ci",))


async def test_settings_that_need_a_restart(world: World) -> None:
    """One warning names them; the others are applied."""
    await world.reload('[keys]\nexpiry = "5m"\n[server]\nport = 81\nrateLimit = 9\n')
    assert world.log.lines[1:] == [
        ("warning", "changed settings need a restart", {"settings": ("server.port", "server.rateLimit")})
    ]
    assert (world.applied[0].keys.expiry_s, world.applied[0].server.port) == (300.0, 80)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[keys\n", "{file}, line 1, column 6: not TOML: Expected ']' at the end of a table declaration"),
        ('[keys]\nexpiry = "5"\n', 'keys.expiry ({file}): "5" has a number without a unit; allowed: '),
        ('[issuer]\ndeny = ["me"]\n[keys]\nexpiry = "5m"\n', "issuer.deny ({file}): "),
        ("[server]\nport = 50051\n", "server.port ({file}): issuer and admin API would both listen on port"),
    ],
)
async def test_a_bad_file_changes_nothing(world: World, text: str, error: str) -> None:
    """One ERROR line has the reason; a later good file is compared with the last good settings."""
    await world.reload(text)
    [(level, event, fields)] = world.log.lines
    assert (level, event, world.applied) == ("error", FAILED, [])
    assert fields["error"].startswith(error.format(file=world.file))
    await world.reload('[keys]\nexpiry = "20m"\n')
    assert world.log.lines[1:] == [("info", "settings reloaded", {"changed": ()})]


async def test_a_file_that_is_gone(world: World) -> None:
    """The file of --config is not taken for an empty one."""
    world.file.unlink()
    await world.reloader.reload(world.applied.append)
    assert (world.log.events, world.applied) == ([("error", FAILED)], [])


async def test_requests_are_answered_one_by_one(world: World) -> None:
    """Each request causes a reload; several before it count as one."""
    running = asyncio.create_task(world.reloader.run(world.applied.append))
    for count in (1, 2):
        world.reloader.asked.set()
        world.reloader.asked.set()
        await until_async(lambda count=count: len(world.applied) == count)
    running.cancel()
    await asyncio.wait({running})
    assert (len(world.applied), running.cancelled()) == (2, True)
