"""The command line: it parses, calls and prints.

It contains no other logic, and imports nothing slow before it is needed.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tailbone.cli.options import Group, Invocation
from tailbone.errors import CommandError, ConfigError, TailboneError
from tailbone.text import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class _Mounted(NamedTuple):
    """A command whose module is imported when it is called.

    Attributes:
        target: module and attribute.
        help: its line in ``tailbone --help``.
        aliases: other names.
    """

    target: str
    help: str
    aliases: tuple[str, ...] = ()


_COMMANDS = {
    "dev": _Mounted(
        "tailbone.cli.dev:dev", "Run everything locally on a private tailnet, for evaluation and tests."
    ),
    "server": _Mounted("tailbone.cli.server:server", "Join the tailnet and issue tokens."),
    "token": _Mounted("tailbone.cli.token:token", "Get a token, and print it."),
    "agent": _Mounted(
        "tailbone.cli.agent:agent", "Keep token files fresh, and give tokens to local programs."
    ),
    "exec": _Mounted("tailbone.cli.exec:exec_", "Run a command with tokens that are kept fresh."),
    "verify": _Mounted(
        "tailbone.cli.verify:verify", "Check a token, or check requests for a proxy (forward auth)."
    ),
    "aws": _Mounted("tailbone.cli.adapters:aws", "Print credentials of an AWS role (credential_process)."),
    "gcp": _Mounted(
        "tailbone.cli.adapters:gcp", "Print a token for Google Cloud's SDKs (executable source)."
    ),
    "kubernetes": _Mounted("tailbone.cli.adapters:kubernetes", "Print a token for kubectl (exec plugin)."),
    "vault": _Mounted("tailbone.cli.adapters:vault", "Log in to Vault or OpenBao."),
    "keys": _Mounted("tailbone.cli.keys:keys", "Generate, list and remove signing keys.", ("key",)),
    "explain": _Mounted(
        "tailbone.cli.explain:explain", "Show what a node would get for an audience, and why."
    ),
    "doctor": _Mounted("tailbone.cli.doctor:doctor", "Check whether verifiers will accept the tokens."),
    "health": _Mounted(
        "tailbone.cli.health:health", "Check whether the server on this machine can issue tokens."
    ),
    "policy": _Mounted("tailbone.cli.policy:policy", "Check the tailnet's policy file."),
    "config": _Mounted("tailbone.cli.config:config", "Show the settings, or check a settings file."),
    "version": _Mounted("tailbone.cli.version:version", "Print version and commit."),
    "completion": _Mounted("tailbone.cli.completion:completion", "Print a completion script for a shell."),
}


_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EAGAIN})


_UNIX_MODULES = frozenset({"fcntl", "grp", "pwd", "resource"})


def _described(error: OSError) -> TailboneError:
    """Return a system error with a one-line message. An error of standard output has no file name."""
    writing = error.filename is None and error.errno in _WRITE_ERRORS
    place = "output cannot be written" if writing else error.filename or "system error"
    described = TailboneError(f"{place}: {error.strerror or error}")
    described.__cause__ = error
    return described


@contextmanager
def _failures_reported(context: click.Context) -> Iterator[None]:
    """Report an expected failure as one line on standard error, and exit.

    Exit codes: 2 for wrong settings, as for wrong usage; that of a user's command; 1 for any other failure.
    """
    invocation = context.ensure_object(Invocation)
    try:
        yield
    except CommandError as error:
        invocation.report(error)
        context.exit(error.status)
    except TailboneError as error:
        invocation.report(error)
        context.exit(2 if isinstance(error, ConfigError) else 1)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # click exits silently
        invocation.report(_described(error))
        context.exit(1)
    except ModuleNotFoundError as error:
        if error.name not in _UNIX_MODULES:
            raise
        invocation.report(TailboneError("this needs Linux or macOS"))
        context.exit(1)


class Root(Group):
    """The command ``tailbone``; it imports a command's module only to run it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the flags before the command's name."""
        with _failures_reported(ctx):
            _require_text(args)
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _failures_reported(ctx):
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Return all commands, the first one to try first."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command of that name or alias."""
        for name, mounted in _COMMANDS.items():
            if cmd_name == name or cmd_name in mounted.aliases:
                module, _, attribute = mounted.target.partition(":")
                command: click.Command = getattr(import_module(module), attribute)
                return command
        return None

    def command_rows(self, ctx: click.Context) -> list[tuple[str, str]]:  # noqa: ARG002
        """Return names and short help, without importing the commands."""
        return [(", ".join((name, *mounted.aliases)), mounted.help) for name, mounted in _COMMANDS.items()]


def _require_text(arguments: Sequence[str]) -> None:
    """Refuse arguments that are not UTF-8, since Go, gRPC and tokens need settings and kids as UTF-8."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"argument {quote(argument)} is not valid UTF-8") from None


@click.group(
    cls=Root,
    settings="tailbone",
    invoke_without_command=True,
    epilog="Every flag has a variable, and a place in the settings file: see `tailbone server start --help`.",
)
@click.option("--version", "show_version", is_flag=True, help="Print version and commit.")
@click.pass_context
def tailbone(context: click.Context, show_version: bool) -> None:
    """Short-lived JWTs that say who is calling, for any caller in a Tailscale network.

    \b
    To try it, without an account or any setup:   tailbone dev
    """
    if show_version:
        from tailbone.cli.version import print_version

        print_version(context.ensure_object(Invocation).output())
        context.exit()
    if context.invoked_subcommand is None:
        context.fail("Missing command.")
