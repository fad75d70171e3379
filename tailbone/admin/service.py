"""The admin API's server: the methods of AdminService and grpc's health service, on a Unix socket."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

import grpc
import grpc.aio
import msgspec
from grpc_health.v1 import health_pb2_grpc

from tailbone.admin._proto import admin_pb2 as pb
from tailbone.admin._proto import admin_pb2_grpc
from tailbone.admin.health import Health
from tailbone.admin.interceptor import AdminInterceptor, current_caller
from tailbone.admin.key import key_message
from tailbone.errors import AddressInUseError, BadParameterError, PeerNotFoundError, UnknownCallerError
from tailbone.process.cancellation import Closing
from tailbone.process.log import both
from tailbone.token.policy import TokenRequest

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tailbone.admin.access import Access
    from tailbone.errors import Problem
    from tailbone.keys.listing import KeyInfo
    from tailbone.process.log import Logger
    from tailbone.token.explain import Explanation
    from tailbone.token.identity import Identity
    from tailbone.token.void_rules import VoidRules

SERVICE: Final = "proto.AdminService"

_OPTIONS: Final = (
    # A request has a hundred bytes, and an answer has at most a hundred keys.
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.max_send_message_length", 1024 * 1024),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.max_concurrent_streams", 32),
    # How long a connection may be silent before its first call; gRPC's default is two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A caller that disappears from the tailnet sends no FIN: only pings notice.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # The shortest interval of grpc-go; clients that ping more often are disconnected.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.so_reuseport", 0),
)

_FINISH_S: Final = 5.0


class Lifecycle(Protocol):
    """The part of ``keys.lifecycle.KeyLifecycle`` that the admin API uses."""

    async def generate(self, algorithm: str | None = None, size: int | None = None) -> KeyInfo: ...
    async def list_keys(self) -> Sequence[KeyInfo]: ...
    async def remove(self, kid: str) -> Sequence[KeyInfo]: ...


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What GetStatus says about the server.

    Attributes:
        version: of tailbone.
        commit: of tailbone; empty when it is not known.
        issuer: the ``iss`` of its tokens.
        jwks: where the JWKS is published; empty without a bucket.
        signing_key_id: the kid that signs now; empty for none.
        reasons: why no token can be issued now; empty when one can.
        notes: problems that do not stop token issuance.
    """

    version: str = ""
    commit: str = ""
    issuer: str = ""
    jwks: str = ""
    signing_key_id: str = ""
    reasons: Sequence[Problem] = ()
    notes: Sequence[Problem] = ()


class AdminServer:
    """Serves the admin API, and the standard health service, from ``start`` to ``close``."""

    def __init__(
        self,
        *,
        lifecycle: Lifecycle,
        identify: Callable[[str], Identity],
        find: Callable[[str], Identity],
        explain: Callable[[Identity, TokenRequest], Explanation],
        access: Access,
        void_rules: VoidRules,
        status: Callable[[], ServerStatus],
        calls: Counter[str],
        log: Logger,
        audit: Logger,
        trail: Logger | None = None,
    ) -> None:
        """Make a server that listens nowhere yet.

        Args:
            lifecycle: makes, lists and removes keys.
            identify: from grpc's name of the peer to its identity; raises UnknownCallerError. The name is
                ``unix-abstract:`` and the percent-encoded abstract name of the bridge's end.
            find: from a node's name or address to its identity; raises PeerNotFoundError for a name and
                UnknownCallerError for an address that no node has.
            explain: returns what a node would get for a request.
            access: who may call what.
            void_rules: counts the void rules of the tailnet's policy.
            status: returns what GetStatus says.
            calls: counts the calls, by outcome.
            log: receives the lines of failures and health checks.
            audit: receives a line before each answer, and before each change; if it raises OSError, there is
                no answer or change.
            trail: receives the lines of failures, too, if there is an audit file.
        """
        self._access = access
        self._log = log
        self._servicer = _Servicer(lifecycle, find, explain, access, void_rules, status)
        self._interceptor = AdminInterceptor(
            identify=identify,
            access=access,
            note_void=void_rules.note,
            calls=calls,
            log=both(log, trail),
            audit=audit,
        )
        self._health = Health([SERVICE])
        self._server: Any = None
        self._closing = Closing()

    async def start(self, unix_path: Path) -> None:
        """Listen on a Unix socket; when this returns, connections are accepted.

        Args:
            unix_path: where the socket is made; only this process's user may reach its folder.

        Raises:
            AddressInUseError: the socket could not be made there.
        """
        server = grpc.aio.server(interceptors=[self._interceptor], options=_OPTIONS)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self._servicer, server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self._server = server
        try:
            server.add_insecure_port(f"unix:{quote(str(unix_path))}")
        except RuntimeError as error:
            raise AddressInUseError(
                f"the admin API cannot listen on {unix_path}", detail=str(error)
            ) from None
        await server.start()
        if self._access.mode == "acl":
            self._log.warning(
                "any tailnet user who can reach the admin port can generate and remove keys; "
                "set admin.access = grant to require a role"
            )

    async def close(self, grace_s: float) -> None:
        """Refuse new calls, let running ones end, and stop; idempotent: all callers wait for the same close.

        Args:
            grace_s: seconds that running calls have; a change that is still running then is cancelled, and
                has five more to leave nothing half done.
        """
        await self._closing.once(lambda: self._close(grace_s))

    async def _close(self, grace_s: float) -> None:
        # grpc's threads and descriptors live as long as its last server.
        server, self._server = self._server, None
        if server is not None:
            self._health.close()
            await server.stop(grace_s)
            await self._interceptor.finish(_FINISH_S)


class _Servicer(admin_pb2_grpc.AdminServiceServicer):
    """The methods, for a caller who was admitted."""

    # ruff: noqa: N802  the methods have the wire's names

    def __init__(
        self,
        lifecycle: Lifecycle,
        find: Callable[[str], Identity],
        explain: Callable[[Identity, TokenRequest], Explanation],
        access: Access,
        void_rules: VoidRules,
        status: Callable[[], ServerStatus],
    ) -> None:
        self._lifecycle = lifecycle
        self._find = find
        self._explain = explain
        self._access = access
        self._void_rules = void_rules
        self._status = status
        self._started_at = int(time.time())

    async def GenerateNewKeys(self, request: pb.GenerateNewKeysRequest, _: Any) -> pb.GenerateNewKeysResponse:
        made = await self._lifecycle.generate(
            algorithm=request.algorithm if request.HasField("algorithm") else None,
            size=request.size if request.HasField("size") else None,
        )
        return pb.GenerateNewKeysResponse(key=key_message(made))

    async def ListKeys(self, _request: pb.ListKeysRequest, _: Any) -> pb.ListKeysResponse:
        return pb.ListKeysResponse(keys=map(key_message, await self._lifecycle.list_keys()))

    async def RemoveKey(self, request: pb.RemoveKeyRequest, _: Any) -> pb.RemoveKeyResponse:
        if not request.key_id:
            raise BadParameterError("key_id is missing")
        return pb.RemoveKeyResponse(keys=map(key_message, await self._lifecycle.remove(request.key_id)))

    async def GetStatus(self, _request: pb.GetStatusRequest, _: Any) -> pb.GetStatusResponse:
        status, caller = self._status(), current_caller()
        return pb.GetStatusResponse(
            version=status.version,
            commit=status.commit,
            started_at=self._started_at,
            ready=not status.reasons,
            # A reason may be a note as well.
            reasons=dict.fromkeys(problem.text for problem in (*status.reasons, *status.notes)),
            signing_key_id=status.signing_key_id,
            issuer=status.issuer,
            jwks=status.jwks,
            caller=caller.login_or_tags,
            roles=self._access.roles_of(caller),
            void_rules=self._void_rules.count,
        )

    async def Explain(self, request: pb.ExplainRequest, _: Any) -> pb.ExplainResponse:
        if not request.node:
            raise BadParameterError("a node is needed: its name or tailnet address")
        audience = request.audience if request.HasField("audience") else None
        try:
            node = self._find(request.node)
        except UnknownCallerError as error:
            raise PeerNotFoundError(
                f"no node of this tailnet has the address {request.node}", detail=error.detail
            ) from None
        explained = self._explain(node, TokenRequest(audience=audience))
        refusal = explained.refusal
        return pb.ExplainResponse(
            node=node.node,
            sub=node.subject,
            caller=node.login_or_tags,
            addresses=node.addresses,
            rules=[
                pb.ExplainedRule(rule=_json(rule.rule), matches=rule.matches, void=rule.void)
                for rule in explained.rules
            ],
            claims=_json(explained.claims) if refusal is None else "",
            error="" if refusal is None else refusal.code,
            message="" if refusal is None else refusal.message,
            detail="" if refusal is None else refusal.detail,
            notes=explained.notes,
        )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
