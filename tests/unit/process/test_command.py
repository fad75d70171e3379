"""The command of ``dev -- COMMAND``."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from harness.waiting import until_async

from tailbone.errors import CommandError
from tailbone.process.command import check_command, run_command
from tailbone.process.signals import Stop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def test_a_command_is_checked_as_a_shell_does(tmp_path: Path) -> None:
    """A command that a shell would not find or run fails with the shell's status."""
    check_command([])
    check_command(["sh", "-c", "true"])
    plain = tmp_path / "plain"
    plain.write_text("")
    for command, status in ((str(plain), 126), (str(tmp_path / "missing"), 127), ("no-such-command", 127)):
        with pytest.raises(CommandError) as failure:
            check_command([command])
        assert failure.value.status == status


async def never() -> int:
    """Simulate background work that does not fail."""
    await asyncio.Event().wait()
    return 1


async def run(command: Sequence[str], stop: Stop | None = None, **variables: str) -> int:
    """Run a command while background work does not fail."""
    return await run_command(command, {"PATH": "/usr/bin:/bin", **variables}, stop or Stop(), never())


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
async def test_the_status_is_that_of_a_shell(script: str, status: int) -> None:
    """It is the exit code, or 128 plus the signal's number."""
    assert await run(["sh", "-c", script]) == status


async def test_the_environment_is_the_given_one() -> None:
    """The command does not inherit the environment of this process."""
    assert await run(["sh", "-c", 'test "$MINE-$HOME" = 1-'], MINE="1") == 0


async def test_a_command_that_has_disappeared_is_an_error() -> None:
    """It was deleted after its check."""
    with pytest.raises(CommandError, match="'/nowhere/x' cannot be run"):
        await run(["/nowhere/x"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_the_signal_is_passed_on(tmp_path: Path, number: signal.Signals) -> None:
    """The command can clean up, and its status counts."""
    script = f"trap 'exit {int(number)}' {int(number)}; touch {tmp_path}/ready; while :; do sleep 0.01; done"
    stop = Stop()
    running = asyncio.ensure_future(run(["sh", "-c", script], stop))
    await until_async((tmp_path / "ready").exists)
    stop.received(number)
    assert await running == int(number)


async def test_a_command_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """It has about a second in total."""
    ignore = "import signal, pathlib, time; signal.signal(15, signal.SIG_IGN)"
    script = f"{ignore}; pathlib.Path({str(tmp_path / 'ready')!r}).touch(); time.sleep(60)"
    stop = Stop()
    running = asyncio.ensure_future(run([sys.executable, "-c", script], stop))
    await until_async((tmp_path / "ready").exists)
    began = asyncio.get_running_loop().time()
    stop.received(signal.SIGTERM)
    assert await running == 137
    assert 1 <= asyncio.get_running_loop().time() - began < 3


async def test_a_failure_ends_the_command(tmp_path: Path) -> None:
    """The command gets SIGTERM; the status is the failure's, whatever the command returns."""
    trap = f"trap 'touch {tmp_path}/asked; exit 0' TERM"
    script = f"{trap}; touch {tmp_path}/ready; while :; do sleep 0.01; done"

    async def failing() -> int:
        await until_async((tmp_path / "ready").exists)
        return 1

    variables = {"PATH": "/usr/bin:/bin"}
    assert await run_command(["sh", "-c", script], variables, Stop(), failing()) == 1
    assert (tmp_path / "asked").exists()


async def test_the_rest_of_the_group_ends(tmp_path: Path) -> None:
    """A process that the command left in the background gets SIGTERM, then SIGKILL."""
    asks = f"trap 'touch {tmp_path}/asked' TERM; touch {tmp_path}/ready; while :; do sleep 0.01; done"
    assert (
        await run(["sh", "-c", f'sh -c "{asks}" & until test -e {tmp_path}/ready; do sleep 0.01; done']) == 0
    )
    assert (tmp_path / "asked").exists()


async def test_ctrl_c_reaches_the_whole_group(tmp_path: Path) -> None:
    """As in a terminal, it also reaches what the command runs in the foreground."""
    inner = f"trap 'touch {tmp_path}/got; exit 0' INT; touch {tmp_path}/ready; while :; do sleep 0.01; done"
    stop = Stop()
    running = asyncio.ensure_future(
        run(["sh", "-c", f'trap "" INT; (trap - INT; sh -c "{inner}"); exit 5'], stop)
    )
    await until_async((tmp_path / "ready").exists)
    stop.received(signal.SIGINT)
    await running
    assert (tmp_path / "got").exists()
