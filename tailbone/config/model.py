"""The settings of one run as frozen structs, nested like the settings file, and checked together.

Defaults come from the table, so a struct created without arguments is a run without settings.
Durations are float seconds, and their names end in ``_s``.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tailbone.algorithms import Algorithm  # noqa: TC001 -- msgspec resolves it
from tailbone.config.checks import TAILNET
from tailbone.config.durations import format_duration
from tailbone.config.table import BY_PATH, default
from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from tailbone.config.table import Setting


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """What is logged, and in which format."""

    level: Literal["trace", "debug", "info", "warn", "error"] = default("log.level")
    format: Literal["console", "json"] = default("log.format")
    no_color: bool = default("log.no_color")
    audit_file: str = default("log.auditFile")


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """Signing keys, their publication, and what they sign."""

    dir: str = default("keys.dir")
    bucket: str = default("keys.bucket")
    key_path: str = default("keys.keyPath")
    discovery_path: str = default("keys.discoveryPath")
    issuer: str = default("keys.issuer")
    jwks_uri: str = default("keys.jwksUri")
    outside_check: Literal["auto", "on", "off"] = default("keys.outsideCheck")
    expiry_s: float = default("keys.expiry")
    size: int = default("keys.size")
    backdate_s: float = default("keys.backdate")
    algorithm: Algorithm = default("keys.algorithm")
    max_age_s: float = default("keys.maxAge")
    activate_after_s: float | None = default("keys.activateAfter")
    rotate_every_s: float = default("keys.rotateEvery")
    conditional_writes: bool = default("keys.conditionalWrites")

    @property
    def wait_before_signing_s(self) -> float:
        """How long a published key waits before it signs: keys.activateAfter, or else keys.maxAge."""
        return self.max_age_s if self.activate_after_s is None else self.activate_after_s


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """How a new key is named."""

    prefix: str = default("key.prefix")


class Issuer(msgspec.Struct, frozen=True, kw_only=True):
    """Which tokens may be issued."""

    audiences: tuple[str, ...] = default("issuer.audiences")
    allow_shared: bool = default("issuer.allowShared")
    access: Literal["acl", "grant"] = default("issuer.access")
    capability: str = default("issuer.capability")
    deny: tuple[str, ...] = default("issuer.deny")


class Tailscale(msgspec.Struct, frozen=True, kw_only=True):
    """The tailnet node."""

    authkey: str = default("server.tailscale.authkey")
    authkey_file: str = default("server.tailscale.authkeyFile")
    client_id: str = default("server.tailscale.clientId")
    id_token_file: str = default("server.tailscale.idTokenFile")
    id_token_from: Literal["file", "github", "gcp", "aws"] = default("server.tailscale.idTokenFrom")
    tags: tuple[str, ...] = default("server.tailscale.tags")
    join_timeout_s: float = default("server.tailscale.joinTimeout")
    join_retry_s: float = default("server.tailscale.joinRetry")
    dir: str = default("server.tailscale.dir")
    hostname: str = default("server.tailscale.hostname")
    control_url: str = default("server.tailscale.controlUrl")
    ephemeral: bool = default("server.tailscale.ephemeral")
    loopback: Literal["auto", "on", "off"] = default("server.tailscale.loopback")

    @property
    def asks_cloud(self) -> bool:
        """Whether the ID token comes from a cloud, not from a file."""
        return self.id_token_from != "file"  # noqa: S105 -- not a token

    def __repr__(self) -> str:
        """Return what msgspec would, with the auth key masked."""
        shown = {field: getattr(self, field) for field in self.__struct_fields__}
        shown["authkey"] = "[redacted]" if self.authkey else ""
        return f"Tailscale({', '.join(f'{field}={value!r}' for field, value in shown.items())})"

    __str__ = __repr__


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """The issuer's listener."""

    port: int = default("server.port")
    binding: str = default("server.binding")
    allowed_hosts: tuple[str, ...] = default("server.allowedHosts")
    max_connections: int = default("server.maxConnections")
    rate_limit: int = default("server.rateLimit")
    metrics_binding: str = default("server.metricsBinding")
    probe_binding: str = default("server.probeBinding")
    tailscale: Tailscale = Tailscale()


class AdminClient(msgspec.Struct, frozen=True, kw_only=True):
    """Which server the ``keys`` commands ask."""

    host: str = default("admin.client.host")
    port: int = default("admin.client.port")


class Admin(msgspec.Struct, frozen=True, kw_only=True):
    """The admin API."""

    binding: str = default("admin.binding")
    port: int = default("admin.port")
    access: Literal["acl", "grant"] = default("admin.access")
    capability: str = default("admin.capability")
    client: AdminClient = AdminClient()


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a run.

    Attributes:
        origins: where each setting was set, by path, for errors found later; defaults are not listed.
        notes: remarks about the settings that are not errors, for the log.
    """

    log: Log = Log()
    keys: Keys = Keys()
    key: Key = Key()
    issuer: Issuer = Issuer()
    server: Server = Server()
    admin: Admin = Admin()
    components: tuple[Literal["issuer", "admin"], ...] = default("components")
    output: Literal["text", "json", "yaml"] = default("output")
    origins: dict[str, str] = {}
    notes: tuple[str, ...] = ()

    def value(self, setting: Setting) -> Any:
        """Return the value of a setting."""
        return reduce(getattr, setting.attributes, self)

    def is_set(self, path: str) -> bool:
        """Return whether a flag, a variable or the file set *path*, such as ``keys.size``."""
        return BY_PATH[path].path in self.origins

    def origin(self, path: str) -> str:
        """Return where *path* was set: ``flag --size``, ``variable TB_KEYS_SIZE``, a file or ``default``."""
        return self.origins.get(BY_PATH[path].path, "default")


def check_together(config: Config) -> None:
    """Refuse settings that are valid alone but contradict each other.

    Raises:
        ConfigError: two settings contradict each other; the message names both.
    """
    _check_rotation(config)
    if config.server.metrics_binding == TAILNET and "issuer" not in config.components:
        raise ConfigError(
            f"server.metricsBinding ({config.origin('server.metricsBinding')}): tailnet needs the issuer, "
            "which components leaves out; allowed: a loopback HOST:PORT"
        )
    node = "server.tailscale."
    tailscale = config.server.tailscale
    names = ("authkey", "authkeyFile", "idTokenFile", *(["idTokenFrom"] if tailscale.asks_cloud else []))
    logins = [f"{node}{name}" for name in names if config.is_set(f"{node}{name}")]
    if len(logins) > 1:
        key, file = logins[:2]
        raise ConfigError(
            f"{key} ({config.origin(key)}) and {file} ({config.origin(file)}) are both set: use one of them"
        )
    federated = tailscale.id_token_file or tailscale.asks_cloud
    if federated and not (tailscale.client_id and tailscale.tags):
        path = f"{node}idTokenFrom" if tailscale.asks_cloud else f"{node}idTokenFile"
        raise ConfigError(f"{path} ({config.origin(path)}) needs {node}clientId and {node}tags")


def _check_rotation(config: Config) -> None:
    keys = config.keys
    wait_s = keys.wait_before_signing_s
    if 0 < keys.rotate_every_s < wait_s:
        path = "keys.maxAge" if keys.activate_after_s is None else "keys.activateAfter"
        raise ConfigError(
            f"keys.rotateEvery ({config.origin('keys.rotateEvery')}): {format_duration(keys.rotate_every_s)} "
            f"is shorter than the wait before a key signs ({path}, {format_duration(wait_s)}): "
            "no key would ever sign"
        )
