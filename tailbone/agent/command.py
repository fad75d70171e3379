"""Run a command with tokens: an agent for the life of the command."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final, NamedTuple

from tailbone.agent.agent import Agent
from tailbone.client import SOCKET_VARIABLE
from tailbone.client.source import start_daemon_thread
from tailbone.files import Disk
from tailbone.process.command import run_command
from tailbone.process.signals import stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tailbone.agent.files import TokenFile
    from tailbone.agent.sdk import Setup
    from tailbone.client.issuer import Tokens
    from tailbone.client.token import Token


_PASSED_ON: Final = (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class VaultLogin(NamedTuple):
    """A login that the command gets.

    Attributes:
        address: Vault's URL.
        role: of its auth method.
        audience: of the role's tokens.
    """

    address: str
    role: str
    audience: str


class Wanted(NamedTuple):
    """The tokens of a command.

    Attributes:
        setups: SDKs' files and variables.
        files: further token files.
        variables: the audience of each variable that gets a token.
        vault: a login; None for none.
    """

    setups: Sequence[Setup] = ()
    files: Sequence[TokenFile] = ()
    variables: Mapping[str, str] = {}
    vault: VaultLogin | None = None


def run_with_tokens(
    issuer: Tokens, wanted: Wanted, folder: Path, command: Sequence[str], environment: Mapping[str, str]
) -> int:
    """Run a command while its token files are kept fresh, and return its status as a shell would.

    Args:
        issuer: whom to ask for tokens.
        wanted: files and variables.
        folder: a private folder, for the agent's socket.
        command: the program and its arguments.
        environment: to which the variables are added.

    Raises:
        TailboneError: there is no token for one of them; the command has not run.
    """
    return asyncio.run(_run(issuer, wanted, folder, command, environment))


async def _run(
    issuer: Tokens, wanted: Wanted, folder: Path, command: Sequence[str], environment: Mapping[str, str]
) -> int:
    with stop_on_signals(also=_PASSED_ON) as stop:
        agent = Agent(issuer, [*wanted.files, *(setup.file for setup in wanted.setups)])
        socket = folder / "agent.sock"
        variables = await stop.run_until_stopped(_prepare(agent, issuer, wanted))
        if variables is None:
            return 128 + (stop.signal or 0)
        async with await agent.listen(socket):
            own = {**variables, SOCKET_VARIABLE: str(socket)}
            return await run_command(command, {**environment, **own}, stop, _keep(agent), pass_on=True)


async def _prepare(agent: Agent, issuer: Tokens, wanted: Wanted) -> dict[str, str]:
    """Write all files, and return all variables."""
    await agent.write()
    variables: dict[str, str] = {}
    for setup in wanted.setups:
        variables |= setup.variables
        for path, text in setup.documents.items():
            await asyncio.to_thread(Disk().replace, path, text.encode(), mode=0o600)
    for name, audience in wanted.variables.items():
        variables[name] = (await _issue(issuer, audience)).value
    if wanted.vault is not None:
        from tailbone.client.vault import log_in

        vault = wanted.vault
        token = await _issue(issuer, vault.audience)
        login = await asyncio.wrap_future(
            start_daemon_thread(lambda: log_in(vault.address, vault.role, token.value))
        )
        for prefix in ("VAULT", "BAO"):
            variables |= {f"{prefix}_ADDR": vault.address, f"{prefix}_TOKEN": login.token}
    return variables


async def _issue(issuer: Tokens, audience: str) -> Token:
    return await asyncio.wrap_future(start_daemon_thread(lambda: issuer.issue(audience)))


async def _keep(agent: Agent) -> int:
    await agent.keep()
    return 1
