"""The admin API's client, for ``keys`` and ``explain``: blocking, and without the server's imports."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

# grpc reads both when it is imported. Its own resolver knows less of search domains and MagicDNS's split DNS
# than the system's, and its connection errors would appear on standard error beside ours.
os.environ.setdefault("GRPC_DNS_RESOLVER", "native")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from tailbone.admin import CODE_METADATA
from tailbone.admin._proto import admin_pb2 as pb
from tailbone.admin._proto import admin_pb2_grpc
from tailbone.admin.key import SEE_THE_KEYS
from tailbone.admin.probe import why_unreachable
from tailbone.admin.proxy import address_of_proxy, proxy_for
from tailbone.errors import AdminError, OldServerError, ServerUnreachableError
from tailbone.text import escape, host_port

if TYPE_CHECKING:
    from types import TracebackType

READ_TIME_S: Final = 15.0
"""Time limit of a read. The server waits 10 s for its bucket; first contact of two nodes takes seconds."""

CHANGE_TIME_S: Final = 45.0
"""Time limit of a change. The server completes or refuses one within 30 s."""

# How grpc's messages begin when there was no connection, so that no request was sent.
_NEVER_SENT: Final = ("failed to connect", "DNS resolution failed", "errors resolving")

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 1024 * 1024),
    # A change is sent once; the user decides whether to repeat it.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
)

_READS: Final = ("ListKeys", "GetStatus", "Explain")
_UNCHANGED: Final = "nothing was changed; "
_HINTS: Final = {
    "unknown_key": SEE_THE_KEYS,
    "store_unavailable": f"{_UNCHANGED}try again when the bucket answers",
    "store_conflict": f"{_UNCHANGED}try again",
    "store_outcome_unknown": "`tailbone keys list` in a minute shows whether it was made",
}


class AdminClient:
    """A connection to one server's admin API, opened by the first call; a context manager.

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
        self.address = host_port(host, port)
        self._proxy = proxy_for(host, port)
        # The proxy that was chosen here, or none: grpc would choose one by its own rules.
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
        """Close the connection; idempotent."""
        self._channel.close()

    def generate(self, *, size: int | None = None, algorithm: str | None = None) -> pb.Key:
        """Make a signing key on the server.

        Args:
            size: bits; None for the server's own setting.
            algorithm: "RS256" or "ES256"; None for the server's own setting.

        Raises:
            OldServerError: the key was made, but by a server that ignores size and algorithm.
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

    def explain(self, node: str, audience: str | None) -> pb.ExplainResponse:
        """Return what a node would get for an audience, and why.

        Args:
            node: a peer's name or tailnet address, as the server knows it.
            audience: None for a token without ``aud``.

        Raises:
            OldServerError: the server does not have this method.
        """
        request = pb.ExplainRequest(node=node, audience=audience)
        explained: pb.ExplainResponse = self._call("Explain", request, READ_TIME_S)
        return explained

    def _call(self, method: str, request: object, timeout_s: float) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._explained(error, method, timeout_s) from None

    def _explained(self, error: Any, method: str, timeout_s: float) -> AdminError:
        status, text = error.code(), escape((error.details() or "").strip())
        reported = dict(error.trailing_metadata() or ()).get(CODE_METADATA, "")
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
            return f"{self.address} cannot be reached through the proxy {address_of_proxy(self._proxy)}"
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
