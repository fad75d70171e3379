"""Flags generated from the table of settings, and commands whose help lists them in sections.

Groups and commands record their flags in one :class:`Invocation`. The command line is parsed from left to
right, so a flag after the subcommand wins over the same flag before it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tailbone.config.table import BY_PATH, EVERYWHERE, GENERAL, GROUPS, SETTINGS, Setting
from tailbone.text import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from click.shell_completion import CompletionItem

    from tailbone.config.model import Config
    from tailbone.errors import TailboneError

_HELP_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Invocation:
    """The flags of one command line, before they are loaded as settings.

    Attributes:
        flags: setting paths, and the text of their flags.
        config_file: the file of ``--config``.
        config: the settings, once a command has loaded them.
    """

    def __init__(self) -> None:
        self.flags: dict[str, str | list[str]] = {}
        self.config_file: str | None = None
        self.config: Config | None = None

    def load(self, *, isolated: bool = False, quiet: bool = False) -> Config:
        """Load the settings of this run; see :func:`tailbone.config.load.load`.

        Args:
            isolated: load as for ``tailbone dev``.
            quiet: leave the settings' notes to the caller, instead of printing them to standard error.

        Raises:
            ConfigError: a setting is invalid.
        """
        from tailbone.config.load import load

        self.config = load(self.flags, config_file=self.config_file, isolated=isolated)
        if not quiet:
            for note in self.config.notes:
                click.echo(f"tailbone: note: {note}", err=True)
        return self.config

    def reread(self) -> Config:
        """Load the settings again, with the same flags and variables, and the file as it is now.

        Raises:
            ConfigError: a setting is invalid, or the file can be read only once.
        """
        from tailbone.config.load import load

        return load(self.flags, config_file=self.config_file, again=True)

    def output(self) -> str:
        """Return the output format from flag and variable alone, for commands that tolerate broken settings.

        Raises:
            ConfigError: the format is unknown.
        """
        from tailbone.config.load import load

        known = {path: text for path, text in self.flags.items() if path == "output"}
        variable = BY_PATH["output"].variable
        return load(known, environ={variable: os.environ.get(variable, "")}).output

    def report(self, error: TailboneError) -> None:
        """Print *error* as one line on standard error.

        With ``--log-level debug`` its detail precedes it; with trace, its traceback does too.
        """
        level = self._log_level()
        if level == "trace":
            import traceback

            click.echo(redact("".join(traceback.format_exception(error))), err=True, nl=False)
        if level in ("debug", "trace") and error.detail:
            click.echo(f"tailbone: detail: {redact(error.detail)}", err=True)
        message = " ".join(error.message.split())
        click.echo(f"tailbone: {redact(message)}", err=True)

    def _log_level(self) -> str:
        if self.config:
            return self.config.log.level
        setting = BY_PATH["log.level"]
        given = self.flags.get(setting.path) or os.environ.get(setting.variable, "")
        return str(given).strip().lower()


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)
"""Decorator: calls the command with the :class:`Invocation` as its first argument."""


class SettingOption(click.Option):
    """The flag of one setting; :func:`tailbone.config.load.load` checks its text."""

    def __init__(self, setting: Setting, *, hidden: bool = False, isolated: bool = False) -> None:
        self.setting = setting
        self.isolated = isolated
        flags = list(setting.flags)
        if setting.kind.is_switch:
            flags[-1] += f"/--no-{setting.flag.removeprefix('--')}"
        super().__init__(
            [*flags, setting.path.replace(".", "_").lower()],
            expose_value=False,
            callback=_record_setting,
            metavar=setting.kind.metavar or None,
            multiple=setting.kind.is_list,
            is_flag=setting.kind.is_switch or None,
            default=None,
            help=setting.help,
            hidden=hidden,
        )

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return flags and help, with the default and the variable."""
        record = super().get_help_record(ctx)
        if record is None:
            return None
        return record[0], _help_of(self.setting, isolated=self.isolated)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Return the allowed values, or folders."""
        from click.shell_completion import CompletionItem

        kind = self.setting.kind
        if kind.metavar == "DIR":
            return [CompletionItem(incomplete, type="dir")]
        return [CompletionItem(choice) for choice in kind.choices if choice.startswith(incomplete)]


def _help_of(setting: Setting, *, isolated: bool = False) -> str:
    """Return the setting's help with its default and variables. The value of a secret is never shown."""
    notes = []
    if setting.shown_default:
        notes.append(f"default: {setting.shown_default}")
    if not (isolated and setting.production):
        notes.append(f"env: {', '.join((setting.variable, *setting.fallbacks))}")
    return f"{setting.help}  [{'; '.join(notes)}]" if notes else setting.help


def _record_setting(context: click.Context, option: click.Parameter, value: Any) -> None:
    assert isinstance(option, SettingOption)  # noqa: S101 - for the type checker
    if context.get_parameter_source(option.name or "") is not ParameterSource.COMMANDLINE:
        return
    if isinstance(value, bool):
        value = "true" if value else "false"
    flags = context.ensure_object(Invocation).flags
    flags[option.setting.path] = value if isinstance(value, str) else list(value)


def _record_file(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Invocation).config_file = value


def options_for(command: str, *, only_own: bool = False) -> Iterator[click.Option]:
    """Yield the flags of all settings that *command* accepts.

    Args:
        command: ``server``, or ``server start``; a subcommand also accepts its group's flags.
        only_own: omit the group's flags from ``--help``; they are still accepted.
    """
    group = command.partition(" ")[0]
    isolated = command == "dev"
    for setting in SETTINGS:
        if not setting.flags or not {EVERYWHERE, group, command} & set(setting.commands):
            continue
        own = {EVERYWHERE, command if command != group else EVERYWHERE} & set(setting.commands)
        yield SettingOption(setting, hidden=only_own and not own, isolated=isolated)
    yield click.Option(
        ["--config", "config_file"],
        expose_value=False,
        callback=_record_file,
        type=click.Path(),
        metavar="FILE",
        help="Settings file (TOML); no other file is read."
        if isolated
        else "Settings file (TOML).  [default: ~/.tailbone.toml; env: TB_CONFIG]",
    )


def flagless_for(command: str) -> Sequence[Setting]:
    """Return the settings of *command* that can be set only by variable and in the settings file."""
    takers = {command, command.partition(" ")[0]}
    return [setting for setting in SETTINGS if not setting.flags and takers & set(setting.commands)]


@contextmanager
def _redacted() -> Iterator[None]:
    """Mask secrets in click's errors, which repeat unexpected arguments, such as a key without its flag."""
    try:
        yield
    except click.UsageError as error:
        error.message = redact(error.message)  # type: ignore[misc]  # click finds it final
        raise


class Command(click.Command):
    """A command with the flags of its settings. Its help lists its own options, then the settings by group.

    Args:
        settings: the command whose flags it has: ``server start``.
        only_own: see :func:`options_for`.
        aliases: other names.
    """

    def __init__(
        self,
        *args: Any,
        settings: str = "",
        only_own: bool = False,
        aliases: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("context_settings", {}).update(_HELP_SETTINGS)
        super().__init__(*args, **kwargs)
        self.aliases = tuple(aliases)
        command = settings or str(self.name)
        self.params.extend(options_for(command, only_own=only_own))
        self._without_flags = () if only_own else flagless_for(command)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; an error shows no secret."""
        with _redacted():
            return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of flags."""
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Options", *GROUPS)}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is None:
                continue
            if isinstance(option, SettingOption):
                sections[option.setting.group].append(record)
            elif {"--config", "--help"} & set(option.opts):
                sections[GENERAL].append(record)
            else:
                sections["Options"].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        if self._without_flags:
            with formatter.section("Settings without a flag"):
                formatter.write_dl([(setting.path, _help_of(setting)) for setting in self._without_flags])


class Group(Command, click.Group):
    """A group of commands, with flags that may also follow the subcommand.

    Without a command it prints its help. Arguments are those of :class:`Command`.
    """

    command_class = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; without any, print the help and exit."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an error shows no secret."""
        with _redacted():
            return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command with that name or alias."""
        found = super().get_command(ctx, cmd_name)
        if found:
            return found
        for command in self.commands.values():
            if cmd_name in getattr(command, "aliases", ()):
                return command
        return None

    def command_rows(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Return the commands' names and short help."""
        rows = []
        for name in self.list_commands(ctx):
            command = super().get_command(ctx, name)
            if command and not command.hidden:
                names = ", ".join((name, *getattr(command, "aliases", ())))
                rows.append((names, command.get_short_help_str(limit=90)))
        return rows

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then the sections of flags."""
        with formatter.section("Commands"):
            formatter.write_dl(self.command_rows(ctx))
        super().format_options(ctx, formatter)
