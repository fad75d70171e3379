"""Lint a policy file: judge its rules by the server's own decoders, and warn of likely mistakes. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from tailbone.admin.access import parse_role
from tailbone.errors import GrantConflictError
from tailbone.policy_file.hujson import HuJSONError, Node, parse
from tailbone.token.grants import ANY_AUDIENCE, GrantRule, parse_rule
from tailbone.token.policy import combine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DOMAIN: Final = "tailbone.dev/"


class Finding(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Something to correct, or to think about.

    Attributes:
        line: where, counted from 1.
        level: an error means that a rule grants nothing, or that the file cannot be read.
        message: what is wrong.
    """

    line: int
    level: Literal["error", "warning"]
    message: str


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the server that the policy is for.

    Attributes:
        token_capability: ``issuer.capability``.
        admin_capability: ``admin.capability``.
        port: ``server.port``.
        admin_port: ``admin.port``.
    """

    token_capability: str
    admin_capability: str
    port: int
    admin_port: int


def lint(text: str, server: Server) -> tuple[list[Finding], int]:
    """Return what is wrong with a policy, in the order of its lines, and how many valid rules it has."""
    try:
        root = parse(text)
    except HuJSONError as error:
        return [Finding(line=error.line, level="error", message=f"not HuJSON: {error}")], 0
    linter = _Linter(root, server)
    linter.lint()
    return sorted(linter.findings), linter.valid


class _Access(NamedTuple):
    """Who an entry of ``grants`` or ``acls`` lets reach what.

    Attributes:
        opens: pairs of a host and ports, such as ``*`` and ``tcp:80``.
    """

    src: list[str]
    dst: list[str]
    opens: list[tuple[str, str]]


class _Given(NamedTuple):
    """A claim that a rule gives.

    Attributes:
        name: of the claim, in lower case.
        value: what must be the same in all rules; of a list, that it is one.
    """

    name: str
    value: str


class _Linter:
    def __init__(self, root: Node, server: Server) -> None:
        self._root = root
        self._server = server
        self._access = [
            *(_grant_access(node) for node in _items(root, "grants")),
            *(_acl_access(node) for node in _items(root, "acls")),
        ]
        self._rules: list[tuple[int, GrantRule]] = []
        self._hosts: dict[int, set[str]] = {}
        self.findings: list[Finding] = []
        self.valid = 0

    def lint(self) -> None:
        if not isinstance(self._root.value, dict):
            self._error(self._root.line, "a policy is an object")
            return
        for name, line in _repeated(self._root):
            self._error(line, f"{name} is given twice in one object: only the last one counts")
        for section in ("grants", "acls"):
            self._check_list(self._root, section, "objects", dict)
        for grant in _items(self._root, "grants"):
            self._lint_grant(grant)
            self._lint_misplaced(grant, apart_from="app")
        self._lint_misplaced(self._root, apart_from="grants")
        self._lint_conflicts()

    def _error(self, line: int, message: str) -> None:
        self.findings.append(Finding(line=line, level="error", message=message))

    def _warn(self, line: int, message: str) -> None:
        self.findings.append(Finding(line=line, level="warning", message=message))

    def _check_list(self, node: Node, name: str, what: str, kind: type) -> None:
        """Check that a member, if there is one, is a list of values of one kind."""
        member = _member(node, name)
        if member is not None and not (
            isinstance(member.value, list) and all(isinstance(item, kind) for item in member.value)
        ):
            self._error(member.line, f"{name} must be a list of {what}: it grants nothing")

    def _lint_grant(self, node: Node) -> None:
        app = _member(node, "app")
        if app is not None and not isinstance(app.value, dict):
            self._error(app.line, "app must be an object: it grants nothing")
        ours = {name: values for name, values in app.members.items() if self._is_ours(name)} if app else {}
        if not ours:
            return
        for name, values in ours.items():
            self._lint_capability(name, values)
        for name in ("src", "dst", "ip"):
            self._check_list(node, name, "text", str)
        grant = _grant_access(node)
        for name, words in (("src", grant.src), ("dst", grant.dst)):
            member = _member(node, name)
            if not words and (member is None or member.value == []):
                self._error(node.line, f"{name} is empty or missing: this grants nothing")
        if "*" in grant.src:
            self._warn(node.line, 'src is "*": this grants to every node, also those shared in')
        if "*" in grant.dst:
            self._warn(node.line, 'dst is "*": name the servers, such as tag:tailbone')
        if not grant.opens:
            self._warn(node.line, "ip is missing: this grant alone lets nobody reach the server")
        for name in ours:
            port = self._server.admin_port if name == self._server.admin_capability else self._server.port
            if grant.dst and not _may_include(self._open_hosts(port), grant.dst):
                where = ", ".join(grant.dst)
                self._warn(node.line, f"nothing in grants or acls lets anybody reach port {port} of {where}")

    def _is_ours(self, name: str) -> bool:
        # Tailscale and the server compare names exactly: another case is a mistake to report.
        return name.lower().startswith(_DOMAIN) or name in self._decoders

    def _open_hosts(self, port: int) -> set[str]:
        """Return the hosts on which somebody may reach a port, as the policy names them."""
        if port not in self._hosts:
            self._hosts[port] = {
                host
                for rule in self._access
                for host, ports in rule.opens
                if rule.src and _has_port(ports, port)
            }
        return self._hosts[port]

    @property
    def _decoders(self) -> dict[str, Callable[[Any], Any]]:
        return {self._server.token_capability: parse_rule, self._server.admin_capability: parse_role}

    def _lint_capability(self, name: str, values: Node) -> None:
        decode = self._decoders.get(name)
        if decode is None:
            known = " and ".join(self._decoders)
            self._error(values.line, f"{name} is unknown; the server reads {known}")
            return
        if not isinstance(values.value, list):
            self._error(values.line, f"{name} must be a list of objects")
            return
        if not values.items:
            self._error(values.line, f"{name} is an empty list: it grants nothing")
        for node in values.items:
            try:
                rule = decode(node.value)
            except ValueError as error:
                self._error(_line_of_fault(node, decode), f"void: {error}")
                continue
            self.valid += 1
            if isinstance(rule, GrantRule):
                self._rules.append((node.line, rule))

    def _lint_misplaced(self, node: Node, *, apart_from: str = "") -> None:
        """Find capabilities where no server looks for them."""
        for name, member in node.members.items():
            if name.lower() == apart_from:
                continue
            if self._is_ours(name):
                self._error(member.line, f"{name} is read from the app of a grant only")
            self._lint_misplaced(member)
        for item in node.items:
            self._lint_misplaced(item)

    def _lint_conflicts(self) -> None:
        """Warn of rules that cannot be granted to one caller together."""
        earlier = _Earlier()
        for line, rule in self._rules:
            for other_line, other in earlier.differing_from(rule):
                self._lint_pair(other_line, other, line, rule)
            earlier.add(line, rule)

    def _lint_pair(self, line: int, one: GrantRule, later: int, other: GrantRule) -> None:
        for audience in _common_audiences(one, other):
            try:
                combine((one, other), audience, ttl_s=1)
            except GrantConflictError as error:
                what = f"audience {audience}" if audience is not None else "tokens without an audience"
                self._warn(
                    later,
                    f"{error.detail} for {what}, here and in line {line}: "
                    "a caller with both rules is refused (grant_conflict)",
                )
                return


class _Earlier:
    """The claims of earlier rules, for each audience: two different values of each are enough.

    So the time does not grow with the square of the number of rules.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str | None], dict[str, tuple[int, GrantRule]]] = {}

    def add(self, line: int, rule: GrantRule) -> None:
        for name, value in _given(rule):
            for audience in (*rule.audiences, _SOME) if rule.audiences else (None,):
                values = self._seen.setdefault((name, audience), {})
                if len(values) < _ENOUGH:
                    values.setdefault(value, (line, rule))

    def differing_from(self, rule: GrantRule) -> list[tuple[int, GrantRule]]:
        """Return earlier rules that give another value of a claim to an audience of this one."""
        if ANY_AUDIENCE in rule.audiences:
            audiences: set[str | None] = {_SOME}
        else:
            audiences = {*rule.audiences, ANY_AUDIENCE} if rule.audiences else {None}
        found = {}
        for name, value in _given(rule):
            for audience in audiences:
                for other, (line, earlier) in self._seen.get((name, audience), {}).items():
                    if other != value:
                        found[id(earlier)] = line, earlier
        return sorted(found.values(), key=lambda each: each[0])


_SOME: Final = ""
"""Stands for every audience; no rule has it."""

_ENOUGH: Final = 2


def _given(rule: GrantRule) -> Iterator[_Given]:
    """Yield the claims of a rule of which a token has one value."""
    if rule.subject:
        yield _Given("sub", rule.subject)
    if rule.scope:
        yield _Given("scope", rule.scope)
    for name, claim in rule.claims.items():
        yield _Given(
            f"claims {name.lower()}", f"{name} {'list' if isinstance(claim, tuple) else repr(claim)}"
        )
    for key, tag in rule.aws_tags.items():
        yield _Given(f"awsTags {key.lower()}", f"{key} {tag}")


def _items(root: Node, section: str) -> tuple[Node, ...]:
    node = _member(root, section)
    return node.items if node else ()


def _member(node: Node, name: str) -> Node | None:
    """Return a member that the policy itself defines; Tailscale and Headscale take its name in any case."""
    return next((member for key, member in node.members.items() if key.lower() == name), None)


def _grant_access(node: Node) -> _Access:
    src, dst = _words(_member(node, "src")), _words(_member(node, "dst"))
    return _Access(src, dst, [(host, ports) for host in dst for ports in _words(_member(node, "ip"))])


def _acl_access(node: Node) -> _Access:
    """Return the access of an entry of ``acls``, where each dst ends with its ports."""
    src, dst = _words(_member(node, "src")), _words(_member(node, "dst"))
    proto = _member(node, "proto")
    prefix = f"{proto.value}:" if proto and proto.value else ""
    opens = [(host, f"{prefix}{ports}") for host, _, ports in (word.rpartition(":") for word in dst)]
    return _Access(src, dst, opens)


def _words(node: Node | None) -> list[str]:
    return [item for item in node.value if isinstance(item, str)] if node and node.items else []


def _may_include(hosts: set[str], servers: list[str]) -> bool:
    """Return whether one of the hosts may be a server, as far as their names show.

    Of two tags, no node is expected to have both; an address or ``autogroup:tagged`` may be any node.
    """
    if not all(host.startswith("tag:") for host in hosts):
        return True
    return any(not server.startswith("tag:") or server in hosts for server in servers) and bool(hosts)


def _has_port(ports: str, port: int) -> bool:
    """Return whether ``tcp:80``, ``80-90``, ``80,443`` or ``*`` contains a port."""
    protocol, _, numbers = ports.rpartition(":")
    if protocol not in ("", "tcp", "6"):
        return False
    for part in numbers.split(","):
        if part == "*":
            return True
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match and int(match[1]) <= port <= int(match[2] or match[1]):
            return True
    return False


def _repeated(node: Node) -> Iterator[tuple[str, int]]:
    yield from node.repeated
    for child in (*node.members.values(), *node.items):
        yield from _repeated(child)


def _line_of_fault(node: Node, decode: Callable[[Any], Any]) -> int:
    """Return the line of the first member that makes a rule void even by itself; else that of the rule."""
    for name, member in node.members.items():
        try:
            decode({name: member.value})
        except ValueError:
            return member.line
    return node.line


def _common_audiences(one: GrantRule, other: GrantRule) -> list[str | None]:
    """Return the audiences that both rules are for."""
    if not one.audiences and not other.audiences:
        return [None]
    names = sorted(one.audiences | other.audiences | {ANY_AUDIENCE})
    return [name for name in names if one.covers(name) and other.covers(name)]
