"""``tailbone dev``: a private tailnet, the real server, callers and loopback ports, all on this machine.

Everything but the control server is what production runs. It must never touch production: it keeps keys and
nodes in a folder of its own, and no variable tells it where production keeps its things.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from tailbone.dev.command import check_command, run_command
from tailbone.dev.flags import IGNORE_ENDPOINTS, DevSettings, check_bucket, check_identities, parse_endpoint
from tailbone.dev.running import Dev, DevFacts
from tailbone.process.log import get_logger
from tailbone.process.signals import stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tailbone.config.model import Config
    from tailbone.process.signals import Stop

__all__ = ["DevFacts", "DevSettings", "check_bucket", "check_identities", "parse_endpoint", "run"]


def run(
    config: Config,
    settings: DevSettings,
    *,
    on_ready: Callable[[DevFacts], None],
    command: Sequence[str] = (),
) -> int:
    """Run ``tailbone dev`` until a signal ends it, or until ``command`` has ended.

    Returns:
        The exit code: that of ``command`` where one was given; 128 and the signal's number where a signal
        came before ``command`` ran, and 1 where the server's background work failed.

    Raises:
        CommandError: the command cannot be run.
        TailboneError: it could not start.
    """
    check_command(command)
    environment = dict(os.environ)
    # A profile may say so, too; the variable wins over it.
    os.environ[IGNORE_ENDPOINTS] = "false"
    # What dev sends stays on this machine: a proxy would get its requests, and the AWS credentials in them.
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "*"
    return asyncio.run(_run(config, settings, on_ready, command, environment))


async def _run(
    config: Config,
    settings: DevSettings,
    on_ready: Callable[[DevFacts], None],
    command: Sequence[str],
    environment: Mapping[str, str],
) -> int:
    with stop_on_signals() as stop:
        async with Dev(config, settings, stop) as dev:
            facts = await stop.unless(dev.start())
            if facts is None:
                return _status_without_run(command, stop)
            on_ready(facts)
            failing = _failing(dev)
            if command:
                return await run_command(command, {**environment, **facts.environment()}, stop, failing)
            return await stop.unless(failing) or 0


async def _failing(dev: Dev) -> int:
    """Wait until background work fails, tell of it, and give the status that dev then has."""
    get_logger().error("background work failed: stopping", exc_info=await dev.failure())
    return 1


def _status_without_run(command: Sequence[str], stop: Stop) -> int:
    """Give the status of a dev that a signal ended on its way up: a command that did not run has failed."""
    return 128 + stop.signal if command and stop.signal is not None else 0
