"""Token files: their settings, and how one is kept fresh."""

from __future__ import annotations

import asyncio
import grp
import pwd
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tailbone.config.durations import parse_duration
from tailbone.errors import ConfigError, TailboneError
from tailbone.files import Disk
from tailbone.process.log import get_logger
from tailbone.text import quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.client.source import AsyncTokenSource
    from tailbone.client.token import Token

_LOOK_S = 1.0
"""How often a file is looked for: some readers delete it, such as Vault's agent."""

_SHORTEST_WAIT_S = 0.01


class TokenFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that always contains a valid token.

    Attributes:
        path: the file. Its folder must exist.
        audience: the claim ``aud``; empty for tokens without it.
        ttl: lifetime to request, in seconds; None for the issuer's.
        mode: its permission bits.
        owner: its user id; -1 for this process's.
        group: its group id; -1 for this process's.
    """

    path: Path
    audience: str = ""
    ttl: float | None = None
    mode: int = 0o600
    owner: int = -1
    group: int = -1


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    audience: str = ""
    ttl: str = ""
    mode: str = "0600"
    owner: str = ""
    group: str = ""


class _Agent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    files: list[_Row] = []


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    agent: _Agent


def token_file(
    path: str, audience: str, *, ttl: str = "", mode: str = "0600", owner: str = "", group: str = ""
) -> TokenFile:
    """Return the token file of some settings, which are all text.

    Raises:
        ConfigError: a setting is invalid.
    """
    name = f"token file {quote(path)}"
    if "\0" in path:
        raise ConfigError(f"{name}: a path cannot contain a null character")
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"{name}: its folder does not exist")
    if Path(path).exists() and not Path(path).is_file():
        raise ConfigError(f"{name}: a folder or a device is in its place")
    try:
        ttl_s = parse_duration(ttl) if ttl else None
        bits = int(mode, 8)
    except ValueError:
        raise ConfigError(f"{name}: ttl must be a duration such as 30m, mode octal such as 0640") from None
    if bits & ~0o777 or bits & 0o007:
        raise ConfigError(f"{name}: mode must not give anything to others, as {quote(mode)} does")
    try:
        uid = pwd.getpwnam(owner).pw_uid if owner else -1
        gid = grp.getgrnam(group).gr_gid if group else -1
    except KeyError:
        raise ConfigError(f"{name}: its owner or group is unknown on this machine") from None
    return TokenFile(path=Path(path), audience=audience, ttl=ttl_s, mode=bits, owner=uid, group=gid)


def read_files(path: Path) -> list[TokenFile]:
    """Read the token files of a TOML file with tables ``[[agent.files]]``.

    Raises:
        ConfigError: the file cannot be read, or a setting is invalid.
    """
    try:
        document = msgspec.convert(tomllib.loads(path.read_text()), _Document)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        raise ConfigError(f"{path}: invalid TOML") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from None
    return [
        token_file(row.path, row.audience, ttl=row.ttl, mode=row.mode, owner=row.owner, group=row.group)
        for row in document.agent.files
    ]


class Keeper:
    """Keeps one file fresh.

    Attributes:
        file: its settings.
        renewals: how often a new token was written.
        restored: how often the file was written again after somebody deleted it or put a link in its place.
        tried: set when ``keep`` has written the file for the first time, or has failed to.
    """

    def __init__(
        self,
        file: TokenFile,
        source: AsyncTokenSource,
        *,
        on_renewal: Callable[[], None],
        disk: Disk | None = None,
    ) -> None:
        self.file = file
        self.renewals = self.restored = 0
        self.tried = asyncio.Event()
        self._source = source
        self._on_renewal = on_renewal
        self._disk = disk or Disk()
        self._written: Token | None = None
        self._failure = ""
        self._log = get_logger()

    @property
    def stale(self) -> bool:
        """Whether the last attempt to renew the file failed."""
        return bool(self._failure)

    async def write(self) -> None:
        """Write the current token, unless the file has it.

        Raises:
            TailboneError: there is no token.
            OSError: the file cannot be written.
        """
        token = await self._current()
        is_new = token != self._written
        missing = await asyncio.to_thread(self._put, token, always=is_new)
        self._written = token
        self.renewals += is_new
        self.restored += missing and not is_new
        if is_new:
            self._on_renewal()

    async def _current(self) -> Token:
        """Return the token, renewed if that does not take longer than until the next look."""
        try:
            async with asyncio.timeout(_LOOK_S):
                return await self._source.renewed()
        except TimeoutError:
            return await self._source.token()

    def _put(self, token: Token, *, always: bool) -> bool:
        """Write the token always, or if the file is missing or a link; return whether it was."""
        missing = self.file.path.is_symlink() or not self.file.path.is_file()
        if always or missing:
            # Without a newline: botocore and azure-identity do not strip it.
            self._disk.replace(
                self.file.path,
                token.value.encode(),
                mode=self.file.mode,
                owner=self.file.owner,
                group=self.file.group,
            )
        return missing

    async def keep(self) -> None:
        """Renew the file when its source does, and write it again when it is deleted, until cancelled."""
        while True:
            try:
                await self.write()
                self._report(self._source.error)
            except TailboneError as error:
                self._report(error)
            except OSError as error:
                self._report(TailboneError(error.strerror or "it cannot be written"))
            self.tried.set()
            await asyncio.sleep(min(_LOOK_S, max(self._source.due_in_s, _SHORTEST_WAIT_S)))

    def _report(self, error: TailboneError | None) -> None:
        """Log a failure once, and its end."""
        failure = "" if error is None else error.message
        path = str(self.file.path)
        if error is not None and failure != self._failure:
            self._log.warning("a token file cannot be renewed", file=path, code=error.code, error=failure)
        elif self._failure and not failure:
            self._log.info("a token file is renewed again", file=path)
        self._failure = failure
