"""The command of ``tailbone dev -- COMMAND``: started beside the tailnet, and ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from tailbone.dev.descendants import (
    adopt_orphans,
    descriptor_of,
    end_descendants,
    kill_descendants,
    wait_and_reap,
)
from tailbone.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from typing import Any

    from tailbone.process.signals import Stop

# Ctrl-C ends everything within 2 s: what a command does not use of that is left for the rest.
_END_S = 0.8
_TERMINATE_S = 0.3
_LEFT_BEHIND_S = 0.2


def check_command(command: Sequence[str]) -> None:
    """Find out before anything starts that a command cannot be run.

    Raises:
        CommandError: there is no such command, or it may not be run.
    """
    if command and shutil.which(command[0]) is None:
        found = shutil.which(command[0], mode=os.F_OK)
        raise _cannot_run(
            command[0], "it may not be executed" if found else "it was not found", 126 if found else 127
        )


def _cannot_run(name: str, why: str, status: int) -> CommandError:
    return CommandError(f"the command {name!r} cannot be run: {why}", status=status)


async def run_command(
    command: Sequence[str],
    environment: Mapping[str, str],
    stop: Stop,
    failing: Coroutine[Any, Any, int],
) -> int:
    """Run the user's command beside the tailnet, and give its status as a shell would.

    When a signal or ``failing`` ends it, what it had started itself and left behind ends, too.

    Not by asyncio: uvloop forks, on which gRPC remarks and for which Go's runtime is not made;
    ``subprocess`` does not (it uses vfork).

    Args:
        command: the program and its arguments.
        environment: its whole environment.
        stop: tells of a signal, which is passed on to the command.
        failing: when this is done, the command ends as by SIGTERM, and its result is the status instead.
    """
    failed = asyncio.ensure_future(failing)
    try:
        return await _run_command(command, environment, stop, failed)
    finally:
        failed.cancel()


async def _run_command(
    command: Sequence[str], environment: Mapping[str, str], stop: Stop, failed: asyncio.Future[int]
) -> int:
    adopt_orphans()
    try:
        process = subprocess.Popen(command, env=environment)  # noqa: ASYNC220, S603  what the user asked for
    except OSError as error:
        raise _cannot_run(command[0], error.strerror or "unknown error", 126) from None
    stop.before_exit.append(kill_descendants)
    with descriptor_of(process.pid) as descriptor:
        ended = asyncio.ensure_future(asyncio.to_thread(wait_and_reap, process))
        try:
            await stop.unless(asyncio.wait({ended, failed}, return_when=asyncio.FIRST_COMPLETED))
            by_itself = ended.done()
            if not by_itself:
                await _end_command(descriptor, ended, stop.signal or signal.SIGTERM)
        finally:
            _send(descriptor, signal.SIGKILL)
            status = await ended
    # A terminal's Ctrl-C may have ended the command before it was heard of here.
    if stop.signal is not None or not by_itself:
        await end_descendants(_LEFT_BEHIND_S)
    if stop.signal is None and not by_itself:
        return failed.result()
    return status if status >= 0 else 128 - status


async def _end_command(descriptor: int, ended: asyncio.Future[int], number: signal.Signals) -> None:
    """Let a command end by itself, and make it end when it does not."""
    from_terminal = number == signal.SIGINT and sys.stdin is not None and sys.stdin.isatty()
    if not from_terminal:
        # A terminal's Ctrl-C went to the command as well; any other signal came to us alone.
        _send(descriptor, number)
    for patience_s, insist in ((_END_S, signal.SIGTERM), (_TERMINATE_S, signal.SIGKILL)):
        done, _ = await asyncio.wait([ended], timeout=patience_s)
        if done:
            return
        _send(descriptor, insist)


def _send(descriptor: int, number: signal.Signals) -> None:
    """Send a signal to a command that may have ended; not by Popen, which would take its status away."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)
