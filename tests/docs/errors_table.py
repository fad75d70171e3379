"""Generate the tables of docs/errors.md from the errors; ``python -m tests.docs.errors_table`` writes it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tailbone import errors
from tailbone.admin.interceptor import STATUSES as ADMIN_STATUSES
from tailbone.errors import TailboneError, status_in
from tailbone.server.refusals import STATUSES
from tailbone.verify.errors import KeysUnavailableError, NotPermittedError, VerificationError

from .pages import replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "errors.md"
BEGIN = "<!-- errors: made by tests/docs/errors_table.py from tailbone/errors.py and others -->\n"
END = "<!-- /errors -->"

MEANINGS: Final = {
    "internal": "a bug in tailbone",
    "browser_request": "a web page sent the request (`Origin`, or `Sec-Fetch-Site` other than `none`)",
    "no_grant": 'with `issuer.access = "grant"`, no rule of the policy is for this caller and audience',
    "wrong_host": "`Host` is not an address or name of this node; this stops DNS rebinding",
    "unknown_caller": "no node of this tailnet has the caller's address",
    "shared_caller": "the caller's node is shared in from another tailnet",
    "denied": "the caller's user, node or tag is in `issuer.deny`",
    "tailnet_error": "the node is not running",
    "signing_busy": "too many signatures with an RSA key of more than 2048 bits are in progress",
    "verification_failed": "the token does not verify",
    "request_timeout": "nothing more of the request arrived for 10 s",
    "body_too_large": "more than 16 KiB of body, or of its chunks' framing",
}
"""What the class of an error does not say."""

ADVICE: Final = {
    # Answers of the issuer.
    "malformed_request": "send HTTP/1.1 by an ordinary client, and look at a proxy between the two",
    "bad_parameter": "see [HTTP API](http.md) for the parameters",
    "browser_request": "use a command or a program; in a browser, open `http://tailbone/`",
    "unknown_caller": "call from a node of this tailnet, and not through a subnet router",
    "expired_caller": "log the caller's node in again",
    "shared_caller": "set `issuer.allowShared`, if you want nodes of other tailnets to get tokens",
    "audience_not_allowed": "add it with `--audience`, or grant it; `tailbone explain` shows what a node has",
    "denied": "remove the caller from `issuer.deny`",
    "no_grant": "add a rule to the tailnet's policy; `tailbone explain` shows which rules there are",
    "grant_conflict": "correct the rules; the log and `tailbone explain` name them",
    "not_found": "see [HTTP API](http.md) for the paths",
    "method_not_allowed": "use a method of the field `Allow`",
    "request_timeout": "send the whole request, or look at the network",
    "body_too_large": "send no body: parameters are in the query",
    "wrong_host": "use the node's name or address, or add the name with `--allowed-host`",
    "rate_limited": "retry after `Retry-After`, keep tokens until they expire, or raise `server.rateLimit`",
    "internal": "look into the server's log, and report it",
    "log_unavailable": "make room on the disk, or see that something reads the log",
    "no_signing_key": "`/_readyz` and `tailbone keys status` say why",
    "signing_busy": "retry after `Retry-After`, or use keys of 2048 bits or ES256",
    "tailnet_error": "the log says what happened to the node; retry when `/_readyz` answers 200",
    # Verification.
    "missing_token": "send `Authorization: Bearer` and a token",
    "malformed_token": "send the token as it was issued, without quotes and line ends",
    "token_too_large": "send a token of a tailbone issuer",
    "wrong_token_type": "send a token of a tailbone issuer",
    "algorithm_not_allowed": "allow the issuer's algorithm",
    "unknown_kid": "get a new token; if new ones fail too, compare the issuer's URL with the verifier's",
    "bad_signature": "get a new token; if new ones fail too, look for a forged one",
    "malformed_claims": "send a token of a tailbone issuer",
    "wrong_issuer": "compare `keys.issuer` with the verifier's issuer, letter by letter",
    "wrong_audience": "request the audience that the verifier expects",
    "token_expired": "get a new token; if it is new, compare the clocks",
    "token_not_yet_valid": "compare the clocks",
    "not_permitted": "ask the service's owner: its rules name other callers",
    "keys_unavailable": "look at the network between the service and the issuer's URL",
    "invalid_token": "get a new token",
    "verification_failed": "get a new token",
    # The admin API.
    "unknown_key": "`tailbone keys list` shows which keys exist",
    "key_state": "the message says what has to be done first",
    "generation_under_way": "wait for the other key",
    "key_file": "the message names the file, and often the command that corrects it",
    "store_unavailable": "look at the network and the bucket; the server retries by itself",
    "store_conflict": "try again",
    "store_denied": "give the server's credentials the permissions of [Start](start.md#in-your-tailnet)",
    "store_missing": "correct the bucket's name or the AWS settings",
    "store_outcome_unknown": "nothing: the server finds out, and finishes the change",
    "foreign_document": "use another `keys.keyPath`, or move the document away",
    "store_unconditional": "use another store, or set `keys.conditionalWrites` to false with one writer only",
    "forbidden": "get a role by a grant: see [Signing keys](keys.md#roles)",
    "bad_request": "the message says what is allowed",
    "overload": "try again after a second",
    "key_error": "the message says why",
    "peer_not_found": "compare the name with the machines of the tailnet",
    # Start and commands.
    "config_invalid": "correct it: see [Settings](settings.md), and `tailbone config check`",
    "login_refused": "make another auth key",
    "approval_needed": "approve the machine in Tailscale's admin console",
    "control_unreachable": "look at the network, and at `--ts-control-url`",
    "join_timeout": "look at the network, or raise `--ts-join-timeout`",
    "login_needed": "open the URL, or set an auth key",
    "cancelled": "start it again",
    "closed": "start it again",
    "address_in_use": "end the other process, or choose another port",
    "forked": "start processes before the node, or with `subprocess`",
    "command_failed": "correct the command's name or its mode",
    "admin_error": "the message has the server's reason",
    "server_unreachable": "see whether the server of `--host` runs, and whether the policy allows its port",
    "old_server": "upgrade the server",
    "issuer_unreachable": "see whether the server of `--issuer-url` runs, and the policy allows its port",
    "not_tailnet": "connect this machine to the tailnet, or use `--join`; `--any-address` allows it",
    "issuer_answer": "correct `--issuer-url`: something else answers there",
    "issuer_unavailable": "try again; on the server, `tailbone health` says why",
    "issuer_refused": "the message has the issuer's reason, which is in the first table",
    "exchange_failed": "the message has the service's reason; `tailbone doctor --for` checks its rules",
}

READINESS: Final = {
    "starting": ("the server starts", "wait"),
    "node_not_running": ("the node is not connected to the tailnet", "see the log; it may need a login"),
    "node_deleted": ("the control server has deleted the node", "start with a new auth key"),
    "control_unreachable": ("the control server does not answer", "look at the network"),
    "node_key_expires": (
        "the node's key expires soon",
        "disable its expiry in the admin console, or restart with a valid auth key once it has expired",
    ),
    "node_key_expired": ("the node's key has expired", "restart with a valid auth key"),
    "key_faulty": ("a key's files cannot be used", "`tailbone keys list --local` says why"),
    "key_not_published": ("the new key is not in the JWKS yet", "look at the bucket"),
    "key_waiting": ("the new key waits for verifiers' caches", "wait as long as `keys status` says"),
    "no_key": ("there is no key", "`tailbone keys generate`"),
    "log_unavailable": (
        "the line of a token cannot be written",
        "make room on the disk, or see that something reads the log",
    ),
    "jwks_stale": ("the JWKS was not read for a while", "look at the bucket; tokens are still issued"),
    "outside_failed": ("verifiers would refuse the published documents", "the text says what and why"),
    "outside_ok": ("verifiers accept the published documents", "nothing"),
}
"""Codes of `/_readyz` that no error has, or that mean something else there: what it means and what to do."""


def kinds() -> list[type[TailboneError]]:
    """Return all classes of errors, in the order in which they are defined."""

    def below(kind: type[TailboneError]) -> list[type[TailboneError]]:
        return [found for sub in kind.__subclasses__() for found in (sub, *below(sub))]

    return [TailboneError, *below(TailboneError)]


def meaning(kind: type[TailboneError]) -> str:
    """Return what an error means: the first sentence of its docstring, without its end."""
    if kind.code in MEANINGS:
        return MEANINGS[kind.code]
    first = " ".join((kind.__doc__ or "").partition("\n\n")[0].split()).replace("``", "`")
    first = re.sub(r" \(HTTP status \d+\)|\.$", "", first)
    return first[0].lower() + first[1:]


def answered() -> list[type[TailboneError]]:
    """Return the classes that the issuer answers with. No answer has the code of a base class."""
    bases = {errors.RequestError, errors.AccessError, errors.OverloadError}
    found = {*STATUSES, *(kind for base in bases for kind in base.__subclasses__())} - bases
    order = kinds()
    return sorted(found, key=lambda kind: (status_in(STATUSES, kind), order.index(kind)))


def problems() -> set[str]:
    """Return the codes of all ``Problem`` that the source makes."""
    found = set()
    for path in (ROOT / "tailbone").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Problem":
                found |= {code for code in _texts(node.args[0], path) if code}
    return found


def _texts(node: ast.expr, path: Path) -> set[str]:
    if isinstance(node, ast.Constant):
        return {str(node.value)}
    # A name: the two codes of the public check.
    return set(re.findall(r'"(outside_\w+)"', path.read_text())) if isinstance(node, ast.Name) else set()


def _table(head: str, rows: list[tuple[str, ...]]) -> str:
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def tables() -> str:
    """Return the part of the page that is generated."""
    http = answered()
    verifying = [kind for kind in kinds() if issubclass(kind, VerificationError)]
    others = [kind for kind in kinds() if kind not in (*http, *verifying)]
    return f"""## Answers of the issuer

They are `{{"error": code, "message": text}}`. The codes are stable.

{_errors(http, "`error`", lambda kind: str(status_in(STATUSES, kind)))}
## Why a token does not verify

`tailbone.verify` raises an error with this `code`, and services answer with the status.

{_errors(verifying, "code", _verifier_status)}
## Start, commands and the admin API

Commands print the message, and the log has the code. The status is gRPC's, of answers of the admin API.

{_errors(others, "code", _admin_status)}
## Reasons and notes of readiness

While no token can be issued, `/_readyz` answers 503 with `reasons`. `notes` do not stop tokens. Both may also
have the code of an error above, such as `store_denied`. `tailbone keys status` has the full texts.

{_table("| code | what it means | what to do |", [(f"`{code}`", *row) for code, row in READINESS.items()])}"""


def _errors(
    kinds: Sequence[type[TailboneError]], code: str, status: Callable[[type[TailboneError]], str]
) -> str:
    rows = [(status(kind), f"`{kind.code}`", meaning(kind), ADVICE[kind.code]) for kind in kinds]
    return _table(f"| status | {code} | what happened | what to do |", rows)


def _verifier_status(kind: type[TailboneError]) -> str:
    return {NotPermittedError: "403", KeysUnavailableError: "503"}.get(kind, "401")


def _admin_status(kind: type[TailboneError]) -> str:
    status = status_in(ADMIN_STATUSES, kind)
    return "" if status is ADMIN_STATUSES[TailboneError] else status.name


def refresh(text: str) -> str:
    """Return the page's *text* with the current tables."""
    return replaced(text, BEGIN, END, f"\n{tables()}\n")


if __name__ == "__main__":
    PAGE.write_text(refresh(PAGE.read_text()))
