"""The command of `tailbone dev -- COMMAND`.

It gets its own session, so that its process group also contains the processes it starts. A terminal's Ctrl-C
therefore reaches only tailbone, which passes it on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from tailbone.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from typing import Any

    from tailbone.process.signals import Stop

# Ctrl-C must end everything within 2 s, of which the tailnet needs the rest.
_END_S = 0.8
_TERMINATE_S = 0.3
_LEFT_BEHIND_S = 0.2
_POLL_S = 0.01


def check_command(command: Sequence[str]) -> None:
    """Check that a command can be run, before anything starts.

    Raises:
        CommandError: the command was not found, or is not executable.
    """
    if command and shutil.which(command[0]) is None:
        found = shutil.which(command[0], mode=os.F_OK)
        raise cannot_run(
            command[0], "it is not executable" if found else "it was not found", 126 if found else 127
        )


def cannot_run(name: str, why: str, status: int) -> CommandError:
    """Return the error of a command that cannot be run.

    Args:
        name: its name, or its path.
        why: completes a sentence.
        status: what a shell would exit with.
    """
    return CommandError(f"the command {name!r} cannot be run: {why}", status=status)


async def run_command(
    command: Sequence[str],
    environment: Mapping[str, str],
    stop: Stop,
    failing: Coroutine[Any, Any, int],
) -> int:
    """Run the user's command, and return its status as a shell would.

    When it has ended, the processes left in its process group are ended too.

    ``subprocess`` starts it with vfork, since neither gRPC nor Go's runtime supports a fork.

    Args:
        command: the program and its arguments.
        environment: its whole environment.
        stop: its signal is passed on to the command, which has about a second to end; then it gets SIGTERM,
            and soon SIGKILL.
        failing: when this is done, the command gets SIGTERM, and this result becomes the status.
    """
    failed = asyncio.ensure_future(failing)
    try:
        return await _run_command(command, environment, stop, failed)
    finally:
        failed.cancel()


async def _run_command(
    command: Sequence[str],
    environment: Mapping[str, str],
    stop: Stop,
    failed: asyncio.Future[int],
) -> int:
    try:
        process = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: ASYNC220, S603
    except OSError as error:
        raise cannot_run(command[0], error.strerror or "unknown error", 126) from None
    group = process.pid
    stop.before_exit.append(lambda: _send(group, signal.SIGKILL))
    ended: asyncio.Future[Any] = asyncio.ensure_future(asyncio.to_thread(_wait, process.pid))
    try:
        await stop.run_until_stopped(asyncio.wait([ended, failed], return_when=asyncio.FIRST_COMPLETED))
        by_itself = ended.done()
        if not by_itself:
            await _end_command(group, ended, stop.signal or signal.SIGTERM)
    finally:
        if not ended.done():
            _send(group, signal.SIGKILL)
        await ended
        _send(group, signal.SIGTERM)
        status = process.wait()
        await _end_group(group)
    if stop.signal is None and not by_itself:
        return failed.result()
    return status if status >= 0 else 128 - status


def _wait(pid: int) -> None:
    """Wait for a child's end without reaping it: until then, no other process group can get its number."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


async def _end_command(group: int, ended: asyncio.Future[Any], number: signal.Signals) -> None:
    """Pass a signal on to the command; send SIGTERM, then SIGKILL, if it does not end."""
    _send(group, number)
    for timeout_s, stronger in ((_END_S, signal.SIGTERM), (_TERMINATE_S, signal.SIGKILL)):
        done, _ = await asyncio.wait([ended], timeout=timeout_s)
        if done:
            return
        _send(group, stronger)


async def _end_group(group: int) -> None:
    """Wait for the rest of a group after SIGTERM, and kill what has not ended."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _LEFT_BEHIND_S
    while _send(group, 0) and loop.time() < deadline:  # noqa: ASYNC110 -- a group's end has no event
        await asyncio.sleep(_POLL_S)
    _send(group, signal.SIGKILL)


def _send(group: int, number: int) -> bool:
    """Send a signal to every process of a group; return whether any received it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False
