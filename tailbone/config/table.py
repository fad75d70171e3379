"""The table of all settings: the only place that names their flags, variables, kinds, defaults and help.

It must be quick to import, since ``tailbone --help`` reads it. So the rows are named tuples, not msgspec
structs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tailbone.algorithms import ALGORITHMS, NEW_RSA_BITS
from tailbone.config import checks
from tailbone.config.kinds import Choice, Duration, Kind, Number, OneOfNumbers, Switch, Text, Words

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE_PREFIX = "TB_"

GENERAL = "General"
ISSUER = "Issuer"
TAILNET = "Tailnet node"
KEYS = "Keys and JWKS"
ADMIN = "Admin API"
CLIENT = "Which server to ask"
GROUPS = (ISSUER, KEYS, TAILNET, ADMIN, CLIENT, GENERAL)
"""The order of the sections in ``--help`` and in docs/settings.md."""

EVERYWHERE = "*"
"""In :attr:`Setting.commands`: every command has the flag."""


class Setting(NamedTuple):
    """One setting.

    Attributes:
        path: its name and its place in the settings file: ``keys.keyPath``.
        kind: how its values are parsed, and which are allowed.
        default: its value if it is not set.
        help: one sentence for ``--help`` and docs/settings.md.
        group: its section in ``--help`` and docs/settings.md.
        flags: its flags, the short one first; rarely changed settings have none.
        commands: which commands have the flag; ``keys`` and ``server`` mean all of their subcommands.
        secret: the value is never shown in errors, reprs, logs or ``--help``.
        fallbacks: tailscale's own variables, in order, which are read if nothing else sets it.
        default_text: describes the default if it is not a plain value.
        production: it points at production's resources, so ``tailbone dev`` never reads it from a variable.
        live: SIGHUP applies a new value in the settings file to a running server.
    """

    path: str
    kind: Kind
    default: Any
    help: str
    group: str
    flags: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    secret: bool = False
    fallbacks: tuple[str, ...] = ()
    default_text: str = ""
    production: bool = False
    live: bool = False

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return VARIABLE_PREFIX + self.path.replace(".", "_").upper()

    @property
    def flag(self) -> str:
        """Its long flag; empty if it has none."""
        return self.flags[-1] if self.flags else ""

    @property
    def attributes(self) -> tuple[str, ...]:
        """Its attributes in :class:`~tailbone.config.model.Config`: ``("keys", "key_path")``."""
        *tables, name = self.path.split(".")
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
        return (*tables, f"{snake}_s" if isinstance(self.kind, Duration) else snake)

    @property
    def shown_default(self) -> str:
        """The default as a person would write it; empty if there is none."""
        return self.default_text or self.kind.show(self.default)


_PORT = Number(1, 65535, name="a port", metavar="PORT")
_BINDING = Text(
    "auto, or one of the node's own tailnet addresses",
    check=checks.binding,
    if_empty="auto",
    metavar="ADDRESS",
)
_FOLDER = Text("a folder's path", metavar="DIR")
_CAPABILITY = Text("a domain, a slash and a name", pattern=r"[A-Za-z0-9.-]+/\S+", name="a capability's name")
_SERVING = ("server", "dev")
_ASKING = ("keys", "explain")
_KEEPING = ("server", "server housekeeping", "dev")

SETTINGS: tuple[Setting, ...] = (
    # --- the issuer
    Setting(
        path="components",
        kind=Words(Choice("issuer", "admin"), at_least=1),
        default=("issuer", "admin"),
        help="What this process serves.",
        group=ISSUER,
        flags=("--components",),
        commands=("server",),
    ),
    Setting(
        path="server.port",
        kind=_PORT,
        default=80,
        help="Port of the issuer on the tailnet (plain HTTP: WireGuard encrypts it).",
        group=ISSUER,
        flags=("-p", "--port"),
        commands=("server",),
    ),
    Setting(
        path="server.binding",
        kind=_BINDING,
        default="auto",
        help="Tailnet address of the issuer; auto means all of this node's. Never an interface of the host.",
        group=ISSUER,
        flags=("-b", "--binding"),
        commands=("server",),
    ),
    Setting(
        path="server.allowedHosts",
        kind=Words(
            Text("names or addresses, without scheme and port", check=checks.host_name, metavar="HOST")
        ),
        default=(),
        help="Further host names that callers may use for the issuer, besides the node's own.",
        group=ISSUER,
        flags=("--allowed-host",),
        commands=_SERVING,
        live=True,
    ),
    Setting(
        path="server.maxConnections",
        kind=Number(1, 1_000_000),
        default=1024,
        help="Connections that a listener accepts at a time, up to a quarter per address; more are reset.",
        group=ISSUER,
        commands=_SERVING,
    ),
    Setting(
        path="server.rateLimit",
        kind=Number(0, 1_000_000),
        default=50,
        help="Requests per second to `/issue`, `/whoami`, `/` and `/metrics` that are answered for one node, "
        "after a burst of twice as many; 0: no limit.",
        group=ISSUER,
        commands=_SERVING,
    ),
    Setting(
        path="server.metricsBinding",
        kind=Text(
            "tailnet, or a loopback HOST:PORT",
            check=checks.metrics_binding,
            if_empty="",
            metavar="tailnet|HOST:PORT",
        ),
        default="",
        default_text="off",
        help="Serve `GET /metrics` for Prometheus: on the issuer's own port on the tailnet, or on a port of "
        "this machine.",
        group=ISSUER,
        flags=("--metrics-binding",),
        commands=("server",),
        production=True,
    ),
    Setting(
        path="server.probeBinding",
        kind=Text("HOST:PORT", check=checks.probe_binding, if_empty="", metavar="HOST:PORT"),
        default="",
        default_text="off",
        help="Serve `/_healthz`, `/_readyz` and `/metrics` outside the tailnet, such as for a kubelet, also "
        "while the node joins.",
        group=ISSUER,
        flags=("--probe-binding",),
        commands=("server",),
        production=True,
    ),
    Setting(
        path="keys.issuer",
        kind=Text(
            "an https URL with a lower-case host, without port, query and trailing slash; or a name",
            check=checks.issuer,
            metavar="ISSUER",
        ),
        default="tailbone",
        help="The claim iss of every token. With a URL, which cloud verifiers require, a discovery document "
        "is published too. The default of `tailbone dev` is the URL of its JWKS port.",
        group=ISSUER,
        flags=("--issuer",),
        commands=(*_SERVING, "doctor"),
    ),
    Setting(
        path="keys.expiry",
        kind=Duration(1),
        default=1200.0,
        help="How long a token is valid. A caller may request less.",
        group=ISSUER,
        flags=("--expiry",),
        commands=_SERVING,
        live=True,
    ),
    Setting(
        path="keys.backdate",
        kind=Duration(0),
        default=5.0,
        help="How far iat and nbf are in the past, for verifiers whose clocks are behind.",
        group=ISSUER,
        commands=_SERVING,
    ),
    Setting(
        path="issuer.audiences",
        kind=Words(Text("any words", metavar="AUDIENCE")),
        default=(),
        help="Audiences that callers may request (claim aud), besides those that grants give them.",
        group=ISSUER,
        flags=("--audience",),
        commands=_SERVING,
        live=True,
    ),
    Setting(
        path="issuer.allowShared",
        kind=Switch(),
        default=False,
        help="Also issue tokens to nodes that are shared in from other tailnets.",
        group=ISSUER,
        commands=_SERVING,
    ),
    Setting(
        path="issuer.access",
        kind=Choice("acl", "grant"),
        default="acl",
        help="Who gets tokens: acl, every caller that reaches the issuer; grant, callers with a rule in the "
        "tailnet's policy, where issuer.audiences, unless empty, limits the audiences.",
        group=ISSUER,
        commands=_SERVING,
    ),
    Setting(
        path="issuer.capability",
        kind=_CAPABILITY,
        default="tailbone.dev/cap/token",
        help="The capability that grants audiences and claims in the tailnet's policy.",
        group=ISSUER,
        commands=_SERVING,
    ),
    Setting(
        path="issuer.deny",
        kind=Words(Text("user:ID, user:LOGIN, node:ID or tag:NAME", check=checks.caller, metavar="CALLER")),
        default=(),
        help="Users, nodes and tags that get no token, whatever the policy grants them.",
        group=ISSUER,
        commands=_SERVING,
        live=True,
    ),
    # --- keys and their publication
    Setting(
        path="keys.bucket",
        kind=Text(
            "an S3 bucket's name, or file:///some/dir", check=checks.bucket, if_empty="", metavar="BUCKET"
        ),
        default="",
        help="Where the public keys (JWKS) are published. Without it, only this server serves them.",
        group=KEYS,
        flags=("--bucket",),
        commands=(*_KEEPING, "doctor"),
        production=True,
    ),
    Setting(
        path="keys.keyPath",
        kind=Text("the path of an object in the bucket", check=checks.object_path, metavar="PATH"),
        default=".well-known/jwks.json",
        help="Path of the JWKS in the bucket.",
        group=KEYS,
        flags=("--key-path",),
        commands=(*_KEEPING, "doctor"),
        production=True,
    ),
    Setting(
        path="keys.discoveryPath",
        kind=Text(
            "the path of an object in the bucket, or none",
            check=checks.object_path,
            if_empty="",
            metavar="PATH",
        ),
        default="",
        default_text="`openid-configuration` in the folder of keys.keyPath",
        help="Path of the discovery document in the bucket; none publishes only the JWKS.",
        group=KEYS,
        commands=_SERVING,
        production=True,
    ),
    Setting(
        path="keys.jwksUri",
        kind=Text(
            "an https URL with a lower-case host, without port, query and trailing slash",
            check=checks.public_url,
            if_empty="",
            metavar="URL",
        ),
        default="",
        default_text="keys.issuer and `/.well-known/jwks.json`",
        help="URL of the JWKS for verifiers, in the discovery document.",
        group=KEYS,
        commands=(*_SERVING, "doctor"),
        production=True,
    ),
    Setting(
        path="keys.outsideCheck",
        kind=Choice("auto", "on", "off"),
        default="auto",
        help="Fetch discovery document and JWKS as verifiers do, at start and every keys.maxAge, and report "
        "what they would refuse; auto: if keys.issuer is an https URL.",
        group=KEYS,
        commands=_SERVING,
    ),
    Setting(
        path="keys.dir",
        kind=_FOLDER,
        default="keys",
        help="Folder of the signing keys. It contains private keys, so its mode is 0700.",
        group=KEYS,
        flags=("--dir",),
        commands=("server", "server housekeeping", "keys list"),
        production=True,
    ),
    Setting(
        path="keys.size",
        kind=OneOfNumbers(NEW_RSA_BITS, name="a key size"),
        default=2048,
        help="Size of a new RSA key, in bits.",
        group=KEYS,
        flags=("-s", "--size"),
        commands=(*_SERVING, "keys generate"),
    ),
    Setting(
        path="keys.algorithm",
        kind=Choice(*ALGORITHMS),
        default="RS256",
        help="Signature algorithm of a new key. Every verifier supports RS256.",
        group=KEYS,
        flags=("--algorithm",),
        commands=(*_SERVING, "keys generate"),
    ),
    Setting(
        path="key.prefix",
        kind=Text(
            "letters, digits, dot, hyphen and underscore", pattern=r"[A-Za-z0-9._-]{1,100}", name="a prefix"
        ),
        default="tb",
        help="Prefix of a new key's id: PREFIX-UNIXTIME.",
        group=KEYS,
        commands=_SERVING,
    ),
    Setting(
        path="keys.maxAge",
        kind=Duration(1),
        default=300.0,
        help="How long verifiers may cache the JWKS (Cache-Control), and how often the server rereads it.",
        group=KEYS,
        commands=(*_SERVING, "doctor"),
    ),
    Setting(
        path="keys.activateAfter",
        kind=Duration(0),
        default=None,
        default_text="keys.maxAge",
        help="How long a key is published before it signs. Below keys.maxAge, verifiers may not know it yet.",
        group=KEYS,
        commands=_SERVING,
    ),
    Setting(
        path="keys.rotateEvery",
        kind=Duration(0),
        default=0.0,
        default_text="0, never",
        help="How often the server generates a new key and retires the previous one.",
        group=KEYS,
        commands=_SERVING,
    ),
    Setting(
        path="keys.conditionalWrites",
        kind=Switch(),
        default=True,
        help="Set to false only for a store without If-Match, if this server is the bucket's only writer.",
        group=KEYS,
        commands=(*_SERVING, "doctor"),
    ),
    # --- the node
    Setting(
        path="server.tailscale.authkey",
        kind=Text(
            "an auth key, or file:/PATH of a file that contains one",
            pattern=r"\S+",
            name="one word",
            if_empty="",
            metavar="KEY",
        ),
        default="",
        help="Auth key for the first login; later the state folder is enough. Prefer the variable: other "
        "users can see flags in the process list.",
        group=TAILNET,
        flags=("--ts-authkey",),
        commands=("server",),
        secret=True,
        fallbacks=("TS_AUTHKEY", "TS_AUTH_KEY", "TS_CLIENT_SECRET"),
        production=True,
    ),
    Setting(
        path="server.tailscale.authkeyFile",
        kind=Text("a file's path", if_empty="", metavar="FILE"),
        default="",
        help="File that contains the auth key, such as a mounted secret.",
        group=TAILNET,
        flags=("--ts-authkey-file",),
        commands=("server",),
        production=True,
    ),
    Setting(
        path="server.tailscale.clientId",
        kind=Text(
            "the id of a federated identity, which ?preauthorized=true may follow",
            pattern=r"[^\s?]+(\?preauthorized=(true|false))?",
            name="a client id",
            if_empty="",
            metavar="ID",
        ),
        default="",
        help="Identity federation instead of an auth key: the client id that Tailscale shows.",
        group=TAILNET,
        flags=("--ts-client-id",),
        commands=("server",),
        fallbacks=("TS_CLIENT_ID",),
        production=True,
    ),
    Setting(
        path="server.tailscale.idTokenFile",
        kind=Text("a file's path", if_empty="", metavar="FILE"),
        default="",
        help="Identity federation: file that contains the cloud's ID token, with the audience "
        "api.tailscale.com/ID.",
        group=TAILNET,
        flags=("--ts-id-token-file",),
        commands=("server",),
        fallbacks=("TS_ID_TOKEN_FILE",),
        production=True,
    ),
    Setting(
        path="server.tailscale.idTokenFrom",
        kind=Choice("file", "github", "gcp", "aws"),
        default="file",
        help="Identity federation: file, or the cloud that this machine is in. Each login asks the cloud for "
        "an ID token with the audience api.tailscale.com/ID.",
        group=TAILNET,
        flags=("--ts-id-token-from",),
        commands=("server",),
        fallbacks=("TS_ID_TOKEN_FROM",),
        production=True,
    ),
    Setting(
        path="server.tailscale.tags",
        kind=Words(Text("tags such as tag:tailbone", check=checks.tag, metavar="TAG")),
        default=(),
        help="Tags that this node requests. Required for OAuth client secrets and identity federation.",
        group=TAILNET,
        flags=("--ts-tags",),
        commands=("server",),
        fallbacks=("TS_ADVERTISE_TAGS",),
        production=True,
    ),
    Setting(
        path="server.tailscale.controlUrl",
        kind=Text("an http or https URL", check=checks.web_url, if_empty="", metavar="URL"),
        default="",
        default_text="Tailscale's",
        help="Control server, for Headscale or a private tailnet.",
        group=TAILNET,
        flags=("--ts-control-url",),
        commands=("server", "doctor"),
        fallbacks=("TS_CONTROL_URL",),
        production=True,
    ),
    Setting(
        path="server.tailscale.hostname",
        kind=Text(
            "1 to 63 letters, digits, hyphens, underscores and dots, with a letter or digit at each end",
            pattern=r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
            name="a node's name",
            metavar="NAME",
        ),
        default="tailbone",
        help="Name of this node in the tailnet.",
        group=TAILNET,
        flags=("--ts-hostname",),
        commands=("server",),
        production=True,
    ),
    Setting(
        path="server.tailscale.dir",
        kind=_FOLDER,
        default=".tsnet",
        help="Folder of the node's state. Anyone with a copy of it can act as this node.",
        group=TAILNET,
        flags=("--ts-dir",),
        commands=("server", "health"),
        production=True,
    ),
    Setting(
        path="server.tailscale.ephemeral",
        kind=Switch(),
        default=False,
        help="Leave the tailnet on shutdown, and be removed from it.",
        group=TAILNET,
        flags=("--ts-ephemeral",),
        commands=("server",),
        production=True,
    ),
    Setting(
        path="server.tailscale.joinTimeout",
        kind=Duration(0.001),
        default=60.0,
        help="How long joining the tailnet may take; a login by URL gets at least 5 minutes.",
        group=TAILNET,
        flags=("--ts-join-timeout",),
        commands=("server",),
        production=True,
    ),
    Setting(
        path="server.tailscale.joinRetry",
        kind=Duration(0.001),
        default=1.0,
        help="Pause between attempts to reach the control server.",
        group=TAILNET,
        flags=("--ts-join-retry",),
        commands=("server",),
        production=True,
    ),
    Setting(
        path="server.tailscale.loopback",
        kind=Choice("auto", "on", "off"),
        default="auto",
        help="Adapt the node to a tailnet on this machine only; auto: if the control URL is on loopback.",
        group=TAILNET,
        flags=("--ts-loopback",),
        commands=("server",),
        production=True,
    ),
    # --- the admin API
    Setting(
        path="admin.port",
        kind=_PORT,
        default=50051,
        help="Port of the admin API on the tailnet (gRPC).",
        group=ADMIN,
        flags=("--admin-port",),
        commands=("server",),
    ),
    Setting(
        path="admin.binding",
        kind=_BINDING,
        default="auto",
        help="Tailnet address of the admin API; auto means all of this node's.",
        group=ADMIN,
        flags=("--admin-binding",),
        commands=("server",),
    ),
    Setting(
        path="admin.access",
        kind=Choice("acl", "grant"),
        default="acl",
        help="Who may use the admin API: acl, every caller that reaches it; grant, callers with a role.",
        group=ADMIN,
        commands=_SERVING,
    ),
    Setting(
        path="admin.capability",
        kind=_CAPABILITY,
        default="tailbone.dev/cap/admin",
        help="The capability that grants roles in the tailnet's policy.",
        group=ADMIN,
        commands=_SERVING,
    ),
    # --- the admin API's client
    Setting(
        path="admin.client.host",
        kind=Text("a host name or address", check=checks.host_name, if_empty="", metavar="HOST"),
        default="",
        default_text="tailbone",
        help="The server to ask: its name or address on the tailnet.",
        group=CLIENT,
        flags=("--host",),
        commands=_ASKING,
    ),
    Setting(
        path="admin.client.port",
        kind=_PORT,
        default=50051,
        help="Port of its admin API.",
        group=CLIENT,
        flags=("--port",),
        commands=_ASKING,
    ),
    # --- everywhere
    Setting(
        path="output",
        kind=Choice("text", "json", "yaml", synonyms={"yml": "yaml"}),
        default="text",
        help="Output format.",
        group=GENERAL,
        flags=("-o", "--output"),
        commands=(EVERYWHERE,),
    ),
    Setting(
        path="log.level",
        kind=Choice("trace", "debug", "info", "warn", "error", metavar="LEVEL"),
        default="info",
        help="Lowest level that is logged: trace, debug, info, warn or error. The line of a token is logged "
        "at every level. At trace, tailscale's own log is included, and errors have tracebacks.",
        group=GENERAL,
        flags=("--log-level",),
        commands=(EVERYWHERE,),
        live=True,
    ),
    Setting(
        path="log.format",
        kind=Choice("console", "json"),
        default="console",
        help="Log format.",
        group=GENERAL,
        flags=("--log-format",),
        commands=(EVERYWHERE,),
    ),
    Setting(
        path="log.auditFile",
        kind=Text("a file's path", if_empty="", metavar="FILE"),
        default="",
        default_text="the log",
        help="File that gets a line of JSON for each token, admin call and key change; the lines of issued "
        "tokens and successful calls are then not in the log.",
        group=GENERAL,
        flags=("--audit-file",),
        commands=("server",),
    ),
    Setting(
        path="log.no_color",
        kind=Switch(),
        default=False,
        help="No colours in the log. Only a terminal gets colours.",
        group=GENERAL,
        commands=_SERVING,
    ),
)

BY_PATH: Mapping[str, Setting] = {setting.path: setting for setting in SETTINGS}
BY_LOWER_PATH: Mapping[str, Setting] = {setting.path.lower(): setting for setting in SETTINGS}
BY_VARIABLE: Mapping[str, Setting] = {setting.variable: setting for setting in SETTINGS}


def default(path: str) -> Any:
    """Return the default of the setting *path*."""
    return BY_PATH[path].default
