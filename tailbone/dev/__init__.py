"""``tailbone dev``: a private tailnet, the real server, callers and loopback ports, all on this machine.

Everything but the control server is what production runs. It must never touch production: it keeps keys and
nodes in its own folder, and ignores the variables that point at production.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from tailbone.dev.flags import IGNORE_ENDPOINTS, DevSettings, check_bucket, check_identities, parse_endpoint
from tailbone.dev.running import Dev, DevInfo
from tailbone.process.command import check_command, run_command
from tailbone.process.log import get_logger
from tailbone.process.signals import stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tailbone.config.model import Config
    from tailbone.process.signals import Stop

__all__ = ["DevInfo", "DevSettings", "check_bucket", "check_identities", "parse_endpoint", "run"]


def run(
    config: Config,
    settings: DevSettings,
    *,
    on_ready: Callable[[DevInfo], None],
    command: Sequence[str] = (),
) -> int:
    """Run ``tailbone dev`` until a signal, or until ``command`` has ended.

    Returns:
        The exit code: that of ``command`` if there is one; 128 plus the signal's number if a signal came
        before ``command`` ran; 1 if the server's background work failed.

    Raises:
        CommandError: the command cannot be run.
        TailboneError: dev could not start.
    """
    check_command(command)
    environment = dict(os.environ)
    # An AWS profile may set this too; the variable wins over it.
    os.environ[IGNORE_ENDPOINTS] = "false"
    # Dev's requests must stay on this machine: a proxy would see them, and the AWS credentials in them.
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "*"
    return asyncio.run(_run(config, settings, on_ready, command, environment))


async def _run(
    config: Config,
    settings: DevSettings,
    on_ready: Callable[[DevInfo], None],
    command: Sequence[str],
    environment: Mapping[str, str],
) -> int:
    with stop_on_signals() as stop:
        async with Dev(config, settings, stop) as dev:
            info = await stop.run_until_stopped(dev.start())
            if info is None:
                return _status_without_run(command, stop)
            on_ready(info)
            failing = _failing(dev)
            if command:
                return await run_command(command, {**environment, **info.environment()}, stop, failing)
            return await stop.run_until_stopped(failing) or 0


async def _failing(dev: Dev) -> int:
    """Wait until background work fails, log the failure, and return dev's exit status."""
    get_logger().error("background work failed: stopping", exc_info=await dev.failure())
    return 1


def _status_without_run(command: Sequence[str], stop: Stop) -> int:
    """Return the exit status after a signal during start: a command that did not run has failed."""
    return 128 + stop.signal if command and stop.signal is not None else 0
