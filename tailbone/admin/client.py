"""The admin API's client, for ``tailbone keys``: blocking, and without the server's imports."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

# grpc reads both when it is imported. Its own resolver knows less about search domains and MagicDNS's split
# DNS than the system's, and its connection errors would appear on standard error beside ours.
os.environ.setdefault("GRPC_DNS_RESOLVER", "native")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from tailbone.admin._proto import admin_pb2 as pb
from tailbone.admin._proto import admin_pb2_grpc
from tailbone.admin.key import SEE_THE_KEYS
from tailbone.errors import AdminError, ConfigError, OldServerError, ServerUnreachableError

if TYPE_CHECKING:
    from types import TracebackType

READ_TIME_S: Final = 15.0
"""Time limit of a read: the server waits 10 s for its bucket; first contact of two nodes takes seconds."""

CHANGE_TIME_S: Final = 45.0
"""Time limit of a change: the server ends one within 30 s, either way."""

_PROBE_TIME_S: Final = 3.0
_HTTP1_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
# The client's part of the connection preface: its magic, and an empty SETTINGS frame (RFC 9113 section 3.4).
_HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"

# How grpc's texts begin when no connection was made, and so no request was sent.
_NEVER_SENT: Final = ("failed to connect", "DNS resolution failed", "errors resolving")

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 1024 * 1024),
    # A change is sent once: whether to repeat it is the user's decision.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
)

_READS: Final = ("ListKeys", "GetStatus")
_UNCHANGED: Final = "nothing was changed; "
_HINTS: Final = {
    "unknown_key": SEE_THE_KEYS,
    "store_unavailable": f"{_UNCHANGED}try again when the bucket answers",
    "store_conflict": f"{_UNCHANGED}try again",
    "store_outcome_unknown": "`tailbone keys list` in a minute shows whether it was made",
}


class AdminClient:
    """A connection to one server's admin API, made by the first call; a context manager.

    Attributes:
        address: host and port.

    Every call raises AdminError or one of its subclasses, with one line that says what to do.
    """

    def __init__(self, host: str, port: int) -> None:
        """Prepare a connection.

        Args:
            host: a tailnet name or address, as this machine resolves it.
            port: of the admin API.

        Raises:
            ConfigError: a variable names a proxy that is not an HTTP proxy.
        """
        self._host = host
        self._port = port
        self.address = _joined(host, port)
        self._proxy = proxy_for(host, port)
        # Either the proxy that was chosen here, or none: grpc by itself would take http_proxy, too.
        proxy = ("grpc.http_proxy", self._proxy) if self._proxy else ("grpc.enable_http_proxy", 0)
        self._channel = grpc.insecure_channel(f"dns:///{self.address}", options=(*_OPTIONS, proxy))
        self._stub = admin_pb2_grpc.AdminServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; a second call does nothing."""
        self._channel.close()

    def generate(self, *, size: int | None = None, algorithm: str | None = None) -> pb.Key:
        """Make a signing key on the server.

        Args:
            size: bits; None for the server's own setting.
            algorithm: "RS256" or "ES256"; None for the server's own setting.

        Raises:
            OldServerError: the key was made, but by a server that knows neither size nor algorithm.
        """
        request = pb.GenerateNewKeysRequest(size=size, algorithm=algorithm)
        made: pb.Key = self._call("GenerateNewKeys", request, CHANGE_TIME_S).key
        if not made.state and (size is not None or algorithm is not None):
            raise OldServerError(
                f"the server made {made.key_id} with its own settings: it is too old to accept a size "
                "or an algorithm; update the server"
            )
        return made

    def list(self) -> tuple[pb.Key, ...]:
        """Return the keys that the server lists."""
        return tuple(self._call("ListKeys", pb.ListKeysRequest(), READ_TIME_S).keys)

    def remove(self, key_id: str) -> tuple[pb.Key, ...]:
        """Remove a key from the JWKS.

        Returns:
            The keys that are left.
        """
        request = pb.RemoveKeyRequest(key_id=key_id)
        return tuple(self._call("RemoveKey", request, CHANGE_TIME_S).keys)

    def status(self) -> pb.GetStatusResponse:
        """Return the server's status.

        Raises:
            OldServerError: the server does not have this method.
        """
        status: pb.GetStatusResponse = self._call("GetStatus", pb.GetStatusRequest(), READ_TIME_S)
        return status

    def _call(self, method: str, request: object, timeout_s: float) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._explained(error, method, timeout_s) from None

    def _explained(self, error: Any, method: str, timeout_s: float) -> AdminError:
        status, text = error.code(), _one_line(error.details() or "")
        reported = dict(error.trailing_metadata() or ()).get("tailbone-code", "")
        if reported:
            hint = _HINTS.get(str(reported))
            if hint and method in _READS:
                hint = hint.removeprefix(_UNCHANGED)
            return AdminError(f"{text}; {hint}" if hint else text, detail=str(reported))
        if status is grpc.StatusCode.UNIMPLEMENTED:
            return OldServerError("the server is too old for this command: update it")
        if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return ServerUnreachableError(self._why_no_answer(status, text, timeout_s), detail=text)
        return AdminError(f"the server answers: {text or status.name}", detail=status.name)

    def _why_no_answer(self, status: Any, text: str, timeout_s: float) -> str:
        late = status is grpc.StatusCode.DEADLINE_EXCEEDED
        if self._proxy and not late and text.startswith(_NEVER_SENT):
            return f"{self.address} cannot be reached through the proxy {_address_of(self._proxy)}"
        why = "" if self._proxy else why_unreachable(self._host, self._port)
        # A connection that broke during a change may leave the change made, whatever answers there now.
        if why and (late or text.startswith(_NEVER_SENT)):
            return why
        what = (
            f"no answer from {self.address} within {timeout_s:g} s"
            if late
            else f"the connection to {self.address} broke"
        )
        return f"{what}; if this was a change, `tailbone keys list` shows whether it was made"


def proxy_for(host: str, port: int) -> str:
    """Return the proxy for a server as a URL; "" for none.

    grpc_proxy and HTTPS_PROXY name it and NO_PROXY lists exceptions, as in Go. grpc's own reading of these
    variables takes lower case only, http_proxy too, loopback through the proxy, and no ``*.domain``.

    Raises:
        ConfigError: the proxy is not an HTTP proxy.
    """
    names = ("grpc_proxy", "GRPC_PROXY", "https_proxy", "HTTPS_PROXY")
    name = next((name for name in names if os.environ.get(name)), None)
    if name is None or _is_direct(host, port):
        return ""
    proxy = os.environ[name]
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not re.fullmatch("http://[!-~]+", proxy):
        # The value may contain a password.
        raise ConfigError(f"variable {name}: a proxy must be http://HOST:PORT; gRPC supports no other kind")
    return proxy


def _is_direct(host: str, port: int) -> bool:
    """Return whether a server is on this machine or among the exceptions of NO_PROXY."""
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    no_proxy = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    for entry in no_proxy.lower().replace(" ", "").split(","):
        if entry in ("*", host.lower(), _joined(host, port).lower()):
            return True
        domain = entry.removeprefix("*").removeprefix(".")
        if domain and host.lower().endswith(f".{domain}"):
            return True
        with contextlib.suppress(ValueError):
            if address is not None and address in ip_network(entry, strict=False):
                return True
    return False


def _address_of(proxy: str) -> str:
    """Return a proxy's host and port: its URL may contain a password."""
    return proxy.rpartition("//")[2].rpartition("@")[2].rstrip("/")


def why_unreachable(host: str, port: int) -> str:
    """Probe an address, and return in one line why no admin API answers there, and what to do.

    Returns:
        "" when something there speaks HTTP/2, as gRPC does.
    """
    place = _joined(host, port)
    try:
        if _speaks_http2(_first_bytes(host, port, _HTTP2_PREFACE)):
            return ""
        first = _first_bytes(host, port, _HTTP1_REQUEST)
    except (socket.gaierror, UnicodeError):
        return f"no host {host!r} is known here: is this machine on the tailnet? --host names the server"
    except ConnectionRefusedError:
        return (
            f"nothing listens on {place}: is the server running, with the component admin? "
            "--port names another port"
        )
    except TimeoutError:
        return f"{place} does not answer: is the server running, and may this machine reach that port?"
    except OSError as error:
        return f"{place} cannot be reached: {error.strerror or error}"
    if first.startswith(b"HTTP/1."):
        return f"{place} speaks HTTP, not gRPC: --port names the admin API's port, 50051 unless it was set"
    return f"no admin API answers on {place}: --port names its port, 50051 unless it was set"


def _first_bytes(host: str, port: int, greeting: bytes) -> bytes:
    """Connect, send ``greeting``, and return the first bytes of the answer; empty for none."""
    with socket.create_connection((host, port), _PROBE_TIME_S) as connection:
        try:
            connection.sendall(greeting)
            return connection.recv(16)
        except (TimeoutError, ConnectionError):
            return b""


def _speaks_http2(first: bytes) -> bool:
    # A server begins with a SETTINGS frame; its type, 4, is the fourth octet (RFC 9113 sections 3.4 and 4.1).
    return first[3:4] == b"\x04" and first[:1] == b"\x00"


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _one_line(text: str) -> str:
    """Return a foreign program's text as one printable line, since it is shown on a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).strip()
