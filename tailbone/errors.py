"""The exceptions: each class has a stable code, and a message that is safe to show to the caller.

A message says what was wrong and what is allowed; it never contains a secret or an inner exception's text.
Facts for the operator alone go into ``detail``, which is logged and never sent. Each server has a table that
maps the classes to statuses of HTTP or gRPC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

_T = TypeVar("_T")


class TailboneError(Exception):
    """Base class of the failures that tailbone expects.

    Attributes:
        code: stable, lower-case name of the failure, for scripts.
        message: short text for the caller.
        detail: further facts for the log, never shown to the caller.
        public: what any peer may see of a lasting failure in place of its code; see ``Problem``.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, detail: str = "", public: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.public = public


def status_in(table: Mapping[type[TailboneError], _T], kind: type[TailboneError]) -> _T:
    """Return the status of a class of errors: its own, or that of the nearest class above it.

    Args:
        table: a server's statuses; it has one for TailboneError.
        kind: the class.
    """
    return next(table[above] for above in kind.__mro__ if above in table)


class Problem(NamedTuple):
    """An ongoing problem with the server.

    Attributes:
        code: stable, lower-case name of the problem. It names no key, path or host, so anybody may see it.
        text: what is wrong and what helps, for the operator.
        public: what any peer may see in place of the code, because it is published anyway; may be empty.
    """

    code: str
    text: str
    public: str = ""


# --- settings


class ConfigError(TailboneError):
    """A setting is unknown, malformed or contradicts another one."""

    code = "config_invalid"


# --- the tailnet


class TailnetError(TailboneError):
    """An operation of the embedded node or of the private tailnet failed."""

    code = "tailnet_error"


class LoginRefusedError(TailnetError):
    """The control server refused the auth key: unknown, already used, revoked or expired."""

    code = "login_refused"


class ApprovalNeededError(TailnetError):
    """The node waits for an administrator's approval."""

    code = "approval_needed"


class ControlUnreachableError(TailnetError):
    """The control server did not answer."""

    code = "control_unreachable"


class JoinTimeoutError(TailnetError):
    """Joining the tailnet took longer than allowed."""

    code = "join_timeout"


class LoginNeededError(JoinTimeoutError):
    """Nobody opened the login URL in time."""

    code = "login_needed"


class JoinCancelledError(TailnetError):
    """Joining the tailnet was cancelled, or the node was closed meanwhile."""

    code = "cancelled"


class NodeClosedError(TailnetError):
    """The node, listener or tailnet is already closed."""

    code = "closed"


class PeerNotFoundError(TailnetError):
    """The name or address is not a peer in the current netmap."""

    code = "peer_not_found"


class AddressInUseError(TailnetError):
    """A port or socket path is already in use."""

    code = "address_in_use"


class ForkedError(TailnetError):
    """The native library was called in a forked child process, where its threads do not exist."""

    code = "forked"


# --- the command of `tailbone dev -- COMMAND`


class CommandError(TailboneError):
    """The user's command could not be run.

    Attributes:
        status: the exit status that a shell would report: 127 for not found, 126 for not executable.
    """

    code = "command_failed"

    def __init__(self, message: str, *, status: int, detail: str = "") -> None:
        super().__init__(message, detail=detail)
        self.status = status


# --- requests


class RequestError(TailboneError):
    """The request is invalid."""

    code = "bad_request"


class MalformedRequestError(RequestError):
    """The request is not HTTP, or HTTP that two parsers could read differently (RFC 9112 section 6.3)."""

    code = "malformed_request"


class UnknownPathError(RequestError):
    """The path does not exist."""

    code = "not_found"


class MethodNotAllowedError(RequestError):
    """The path does not support the method.

    Attributes:
        allow: the supported methods, as the Allow field lists them (RFC 9110 section 10.2.1).
    """

    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str = "", detail: str = "") -> None:
        super().__init__(message, detail=detail)
        self.allow = allow


class RequestTimeoutError(RequestError):
    """The request was not complete in time."""

    code = "request_timeout"


class BodyTooLargeError(RequestError):
    """The body exceeds the size limit."""

    code = "body_too_large"


class WrongHostError(RequestError):
    """The Host header is not an address or name of this node (RFC 9110 section 15.5.20)."""

    code = "wrong_host"


class BadParameterError(RequestError):
    """A query parameter is unknown, repeated or malformed."""

    code = "bad_parameter"


class AccessError(TailboneError):
    """The caller is not allowed to get what it requested."""

    code = "forbidden"


class BrowserRequestError(AccessError):
    """A web page sent the request, not its visitor."""

    code = "browser_request"


class UnknownCallerError(AccessError):
    """whois does not know the caller's address."""

    code = "unknown_caller"


class ExpiredCallerError(AccessError):
    """The caller's node key has expired."""

    code = "expired_caller"


class SharedCallerError(AccessError):
    """The caller's node is shared from another tailnet."""

    code = "shared_caller"


class AudienceNotAllowedError(AccessError):
    """Neither ``issuer.audiences`` nor a grant allows the requested audience."""

    code = "audience_not_allowed"


class DeniedError(AccessError):
    """The caller is listed in ``issuer.deny``."""

    code = "denied"


class NoGrantError(AccessError):
    """No grant in the tailnet's policy is for this caller and audience."""

    code = "no_grant"


class GrantConflictError(AccessError):
    """The grants for this caller and audience contradict each other, or add up to too much."""

    code = "grant_conflict"


class OverloadError(TailboneError):
    """There are too many requests; a retry after a second may succeed."""

    code = "overload"


class RateLimitError(OverloadError):
    """The caller's node makes more requests than ``server.rateLimit`` allows."""

    code = "rate_limited"


class SigningBusyError(OverloadError):
    """Too many signatures with a large key are in progress."""

    code = "signing_busy"


class LogUnavailableError(TailboneError):
    """The log line of a token or admin call could not be written, so the token or answer was withheld."""

    code = "log_unavailable"


# --- keys and their publication


class SigningError(TailboneError):
    """A key operation failed."""

    code = "key_error"


class NoSigningKeyError(SigningError):
    """No key is ready to sign."""

    code = "no_signing_key"


class UnknownKeyError(SigningError):
    """No key has that kid."""

    code = "unknown_key"


class KeyStateError(SigningError):
    """The state of the key or the folder does not allow this change."""

    code = "key_state"


class GenerationUnderWayError(KeyStateError):
    """Another request to generate a key is in progress; only one runs at a time."""

    code = "generation_under_way"


class KeyFileError(SigningError):
    """A key file is unreadable, malformed or has unsafe permissions."""

    code = "key_file"


class StoreError(TailboneError):
    """The store of the published documents could not be read or written."""

    code = "store_unavailable"


class StoreConflictError(StoreError):
    """Another writer changed the document first: read it again and retry."""

    code = "store_conflict"


class StoreDeniedError(StoreError):
    """The store rejected the credentials, or they lack the permission."""

    code = "store_denied"


class StoreSettingsError(StoreError):
    """No bucket can be used with these settings: the bucket's name or an AWS setting is wrong."""

    code = "store_missing"


class StoreOutcomeUnknownError(StoreError):
    """A write was sent; only a later read can show whether it was applied."""

    code = "store_outcome_unknown"


class ForeignDocumentError(StoreError):
    """The document at a path is not the JWKS, or this issuer's discovery document; it is left untouched."""

    code = "foreign_document"


class UnconditionalStoreError(StoreError):
    """The store ignores If-Match, so two writers could overwrite each other's keys."""

    code = "store_unconditional"


# --- the admin API, as its client sees it


class AdminError(TailboneError):
    """The server refused an admin API call, or could not complete it."""

    code = "admin_error"


class ServerUnreachableError(AdminError):
    """No admin API answered at that address."""

    code = "server_unreachable"


class OldServerError(AdminError):
    """The server is too old to support the request."""

    code = "old_server"


# --- the client


class IssuerUnreachableError(TailboneError):
    """The issuer cannot be reached, or did not answer."""

    code = "issuer_unreachable"


class NotTailnetError(IssuerUnreachableError):
    """The issuer's name has an address outside the tailnet, so it may be another machine."""

    code = "not_tailnet"


class IssuerAnswerError(IssuerUnreachableError):
    """The answer is not that of a tailbone issuer."""

    code = "issuer_answer"


class IssuerUnavailableError(IssuerUnreachableError):
    """The issuer cannot issue tokens now; the message is the issuer's."""

    code = "issuer_unavailable"


class ExchangeError(TailboneError):
    """A service did not exchange the token for credentials; the message has its text."""

    code = "exchange_failed"


class IssuerRefusedError(TailboneError):
    """The issuer refuses the token; the message is the issuer's."""

    code = "issuer_refused"
