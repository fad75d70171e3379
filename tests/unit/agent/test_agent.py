"""The agent: what its files and local programs share, and how readers are notified."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.waiting import until_async

from tailbone.agent.agent import Agent, Reload
from tailbone.agent.files import TokenFile
from tailbone.client.local_agent import LocalAgent
from tailbone.errors import ConfigError, IssuerUnreachableError

if TYPE_CHECKING:
    from unit.agent.conftest import Issuer


def files(folder: Path, *names: str) -> list[TokenFile]:
    return [TokenFile(path=folder / name, audience="a") for name in names]


async def test_files_of_one_audience_share_a_token(issuer: Issuer, tmp_path: Path) -> None:
    """It is requested once; other lifetimes are other tokens."""
    other = TokenFile(path=tmp_path / "other", audience="a", ttl=60.0)
    await Agent(issuer, [*files(tmp_path, "one", "two"), other]).write()
    assert issuer.asked == [("a", None), ("a", 60.0)]
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text() == "token-1"


async def test_a_file_has_one_token(issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is named twice is refused, however it is written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="two tokens cannot be in one file"):
        Agent(issuer, [*files(tmp_path, "one", "two"), *files(Path(), "one")])


async def test_a_file_is_renewed_while_15_minutes_are_left(issuer: Issuer, tmp_path: Path) -> None:
    """Even with the default lifetime of 20 minutes: azure-identity keeps what it has read for 10 minutes."""
    issuer.life_s = 1200.0
    agent = Agent(issuer, files(tmp_path, "t"))
    await agent.write()
    [source] = agent._of_files.values()
    assert source.left_s - source.due_in_s == pytest.approx(900.0, abs=1.0)


async def test_programs_can_ask_for_any_number_of_audiences(issuer: Issuer, tmp_path: Path) -> None:
    """The agent keeps the tokens of those that were asked for last, and those of its files."""
    agent = Agent(issuer, files(tmp_path, "one"))
    programs = LocalAgent(tmp_path / "socket")

    async def ask(audience: str) -> str:
        return (await asyncio.to_thread(programs.issue, audience)).value

    async with agent.listen(tmp_path / "socket"):
        of_file, first, second = [await ask(audience) for audience in ("a", "0", "1")]
        for number in range(2, 256):
            await ask(str(number))
        assert await ask("0") == first
        await ask("256")
        assert (await ask("0"), await ask("a")) == (first, of_file)
        assert await ask("1") != second


async def test_write_raises_what_fails(issuer: Issuer, tmp_path: Path) -> None:
    """For ``--once``, and before a command runs."""
    issuer.error = IssuerUnreachableError("away")
    with pytest.raises(IssuerUnreachableError, match="away"):
        await Agent(issuer, files(tmp_path, "t")).write()


async def test_readers_are_notified_after_all_files(issuer: Issuer, tmp_path: Path) -> None:
    """Once, when all of them are there."""
    command = f"sh -c 'cat {tmp_path}/one {tmp_path}/two > {tmp_path}/ran'"
    await Agent(issuer, files(tmp_path, "one", "two"), reload=Reload(command=command)).write()
    assert (tmp_path / "ran").read_text() == "token-1token-1"


async def test_a_signal_goes_to_the_process_of_the_file(tmp_path: Path) -> None:
    """And to no process group."""
    got = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, got.set)
    pid = tmp_path / "pid"
    try:
        pid.write_text(f"{os.getpid()}\n")
        await Reload("USR1", pid).run()
        await asyncio.wait_for(got.wait(), 10)
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
    for text in ("0", "-1", "x", "9" * 20, "9" * 5000):
        pid.write_text(text)
        await Reload("KILL", pid).run()


async def test_a_pipe_in_place_of_the_pid_file_is_not_waited_for(tmp_path: Path) -> None:
    """Its reader would otherwise keep the agent from ending."""
    os.mkfifo(tmp_path / "pid")
    await asyncio.wait_for(Reload("HUP", tmp_path / "pid").run(), 10)


@pytest.mark.parametrize("command", ["false", "no-such-command"])
async def test_a_command_that_fails_is_not_fatal(command: str) -> None:
    """The files are right."""
    await Reload(command=command).run()


@pytest.mark.parametrize(
    "reload",
    [
        Reload("HUP"),
        Reload(pid_file=Path("x")),
        Reload("NONE", Path("x")),
        Reload(command=" "),
        Reload(command="'"),
    ],
)
def test_wrong_notifications_are_refused(reload: Reload) -> None:
    """A signal needs a process, and must exist; a command line has a first word, and its quotes end."""
    with pytest.raises(ConfigError):
        reload.check()


@pytest.mark.parametrize("error", [None, IssuerUnreachableError("away")], ids=["written", "failed"])
async def test_it_is_ready_after_the_first_try(
    issuer: Issuer, tmp_path: Path, error: IssuerUnreachableError | None
) -> None:
    """Services that start after it find their files, unless there is no token."""
    path, ready = tmp_path / "t", asyncio.Event()
    issuer.error = error
    issuer.may_answer.clear()
    keeping = asyncio.ensure_future(Agent(issuer, [TokenFile(path=path)]).keep(ready.set))
    try:
        async with asyncio.timeout(10):
            await until_async(lambda: issuer.asked)
            assert not ready.is_set()
            issuer.may_answer.set()
            await ready.wait()
        assert path.exists() == (error is None)
    finally:
        issuer.may_answer.set()
        keeping.cancel()


async def test_keep_renews_on_request(issuer: Issuer, tmp_path: Path) -> None:
    """All tokens; the counters say so."""
    path = tmp_path / 'quo"te'
    agent = Agent(issuer, files(tmp_path, path.name))
    keeping = asyncio.ensure_future(agent.keep())
    renewals = f'tailbone_agent_renewals_total{{path="{tmp_path}/quo\\"te",audience="a"}}'
    await until_async(lambda: f"{renewals} 1" in agent.metrics(), timeout_s=5)
    agent.renew()
    await until_async(lambda: f"{renewals} 2" in agent.metrics(), timeout_s=5)
    assert path.read_text() == "token-2"
    keeping.cancel()
