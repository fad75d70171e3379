"""Run a command with tokens: an agent for the life of the command, as its child."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING, Final, NamedTuple

from tailbone.agent.agent import Agent
from tailbone.client import SOCKET_VARIABLE
from tailbone.client.source import start_daemon_thread
from tailbone.files import Disk
from tailbone.process.command import cannot_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tailbone.agent.files import TokenFile
    from tailbone.agent.sdk import Setup
    from tailbone.client.issuer import Tokens
    from tailbone.client.token import Token

_LOOK_S: Final = 0.2
"""How often an agent looks whether its command has ended, where the system has no event for that."""


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


class CommandProcess:
    """The process that becomes the command, as seen by its agent, which is its child."""

    def __init__(self, writing_end: int) -> None:
        """Describe this process, before the fork.

        Args:
            writing_end: of a pipe that this process reads.
        """
        self._pid = os.getpid()
        self._writing_end = writing_end

    def start_command(self, variables: Mapping[str, str]) -> None:
        """Let it become the command, with these variables."""
        with open(self._writing_end, "w", encoding="utf-8") as pipe:  # noqa: PTH123 -- a descriptor
            json.dump(dict(variables), pipe)

    async def ended(self) -> None:
        """Wait until it has ended, as the command or before."""
        try:
            pidfd = os.pidfd_open(self._pid)
        except (AttributeError, OSError):  # not Linux, or older than 5.3; or it has ended
            while os.getppid() == self._pid:  # noqa: ASYNC110 -- there is no event to wait for
                await asyncio.sleep(_LOOK_S)
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)


def become_command(
    command: Sequence[str], environment: Mapping[str, str], agent: Callable[[CommandProcess], None]
) -> int:
    """Start an agent as a child, and become the command when the agent has its variables.

    As with ``ssh-agent COMMAND``, the command has this process's id, terminal, signals and exit status, so
    nothing has to be passed on to it. The child is in another session, so that a terminal's signals do not
    reach it.

    It forks, so neither Go's runtime nor a thread may run yet.

    Args:
        command: the program and its arguments.
        environment: to which the agent's variables are added.
        agent: run in the child; calls ``start_command``, and returns when ``ended`` does.

    Returns:
        In the child, 0 at its end. In the parent, the child's status if it failed before the command ran.

    Raises:
        CommandError: the command cannot be run.
    """
    reading_end, writing_end = os.pipe()
    process = CommandProcess(writing_end)
    child = os.fork()
    if child == 0:
        os.close(reading_end)
        _detach()
        agent(process)
        return 0
    os.close(writing_end)
    with open(reading_end, encoding="utf-8") as pipe:  # noqa: PTH123 -- a descriptor
        variables = pipe.read()
    if not variables:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code
    # Python ignores these two, and a program inherits what is ignored.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), {**environment, **json.loads(variables)})  # noqa: S606 -- as asked
    except OSError as error:
        raise cannot_run(command[0], error.strerror or "unknown error", 126) from None


def _detach() -> None:
    """Leave the terminal, standard input and standard output to the command."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A service manager also sends them to the agent, while the command may still need it.
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nothing, standard)
    os.close(nothing)


def serve_command(process: CommandProcess, issuer: Tokens, wanted: Wanted, folder: Path) -> None:
    """Get the command's tokens, let it start, and keep its files fresh until it ends.

    Args:
        process: becomes the command.
        issuer: whom to ask for tokens.
        wanted: files and variables.
        folder: a private folder, for the agent's socket.

    Raises:
        TailboneError: there is no token for one of them; the command has not run.
    """
    asyncio.run(_serve_until_end(process, issuer, wanted, folder))


async def _serve_until_end(process: CommandProcess, issuer: Tokens, wanted: Wanted, folder: Path) -> None:
    serving = asyncio.ensure_future(_serve(process, issuer, wanted, folder))
    ended = asyncio.ensure_future(process.ended())
    finished, _ = await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
    for task in finished:
        task.result()
    serving.cancel()
    await asyncio.wait({serving})


async def _serve(process: CommandProcess, issuer: Tokens, wanted: Wanted, folder: Path) -> None:
    agent = Agent(issuer, [*wanted.files, *(setup.file for setup in wanted.setups)])
    socket = folder / "agent.sock"
    variables = await _prepare(agent, issuer, wanted)
    async with agent.listen(socket):
        process.start_command({**variables, SOCKET_VARIABLE: str(socket)})
        await agent.keep()


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
