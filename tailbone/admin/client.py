"""The admin API's client: what ``tailbone keys`` asks of a server.

Blocking, and light to import: half of grpc, no protobuf, nothing of the server.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tailbone.admin import proto3
from tailbone.admin.blocking_grpc import grpc
from tailbone.admin.listing import SEE_THE_KEYS, Key
from tailbone.errors import AdminError, OldServerError, ServerUnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

READ_TIME_S: Final = 15.0
"""How long a question may take: the server waits 10 s for its bucket, two nodes seconds for first contact."""

CHANGE_TIME_S: Final = 45.0
"""How long a change may take: the server ends one within 30 s, either way."""

_PROBE_TIME_S: Final = 3.0
_HTTP1_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
# The client's part of the connection preface: its magic, and an empty SETTINGS frame (RFC 9113 section 3.4).
_HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"

# How grpc's texts begin where no connection came about, and so no request was sent.
_NEVER_SENT: Final = ("failed to connect", "DNS resolution failed", "errors resolving")

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 1024 * 1024),
    # The tailnet is not behind a proxy.
    ("grpc.enable_http_proxy", 0),
    # A change is sent once: whether to repeat it is for the person to say.
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


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself; the fields of GetStatusResponse in admin.proto."""

    version: str
    commit: str
    started_at: int
    ready: bool
    reasons: list[str]
    signing_key_id: str
    issuer: str
    jwks: str
    caller: str
    roles: list[str]


class AdminClient:
    """A connection to one server's admin API, made by the first call; a context manager.

    Attributes:
        address: host and port.

    Every call raises AdminError, or one of its subclasses, with one line that says what to do.
    """

    def __init__(self, host: str, port: int) -> None:
        """Prepare a connection.

        Args:
            host: a tailnet name or address, as this machine resolves it.
            port: of the admin API.
        """
        self._host = host
        self._port = port
        self.address = _joined(host, port)
        self._channel = grpc.insecure_channel(f"dns:///{self.address}", options=_OPTIONS)

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; a second call does nothing."""
        self._channel.close()

    def generate(self, *, size: int | None = None, algorithm: str | None = None) -> Key:
        """Have a signing key made.

        Args:
            size: bits; None leaves it to the server.
            algorithm: "RS256" or "ES256"; None leaves it to the server.

        Raises:
            OldServerError: the key was made, but by a server that knows neither size nor algorithm.
        """
        request = proto3.encode({"size": size, "algorithm": algorithm}, proto3.GENERATE_REQUEST)
        answer = self._call("GenerateNewKeys", request, proto3.GENERATE_RESPONSE, CHANGE_TIME_S)
        made = Key(**answer["key"])
        if not made.state and (size is not None or algorithm is not None):
            raise OldServerError(
                f"the server made {made.key_id} by its own settings: it is too old to be asked for a size "
                "or an algorithm; update the server"
            )
        return made

    def list(self) -> tuple[Key, ...]:
        """Give the keys that the server knows."""
        return _keys(self._call("ListKeys", b"", proto3.KEYS_RESPONSE, READ_TIME_S))

    def remove(self, key_id: str) -> tuple[Key, ...]:
        """Have a key taken out of the JWKS.

        Returns:
            The keys that are left.
        """
        request = proto3.encode({"key_id": key_id}, proto3.REMOVE_REQUEST)
        return _keys(self._call("RemoveKey", request, proto3.KEYS_RESPONSE, CHANGE_TIME_S))

    def status(self) -> Status:
        """Ask how the server is.

        Raises:
            OldServerError: the server cannot say.
        """
        answer = self._call("GetStatus", b"", proto3.STATUS_RESPONSE, READ_TIME_S)
        return Status(**answer)

    def _call(
        self, method: str, request: bytes, fields: Mapping[int, proto3.Field], timeout_s: float
    ) -> dict[str, Any]:
        try:
            answer = self._channel.unary_unary(f"/proto.AdminService/{method}")(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._explained(error, method, timeout_s) from None
        return proto3.decode(answer, fields)

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
        why = why_unreachable(self._host, self._port)
        # A connection that broke in the middle of a change may leave it made, whatever answers there now.
        if why and (late or text.startswith(_NEVER_SENT)):
            return why
        what = (
            f"no answer from {self.address} within {timeout_s:g} s"
            if late
            else f"the connection to {self.address} broke"
        )
        return f"{what}; if this was a change, `tailbone keys list` shows whether it was made"


def why_unreachable(host: str, port: int) -> str:
    """Try an address, and say in one line why no admin API answers there, and what to do.

    Returns:
        Nothing when something there speaks HTTP/2, as gRPC does.
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
    """Connect, greet, and give what comes back first: nothing where nothing comes."""
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
    """Give a foreign program's text as one printable line: it goes to a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _keys(answer: Mapping[str, Any]) -> tuple[Key, ...]:
    return tuple(Key(**key) for key in answer["keys"])
