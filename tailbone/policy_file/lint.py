"""Lint a policy file: judge its rules by the server's own decoders, and warn of likely mistakes. Pure."""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from tailbone.admin.access import parse_role
from tailbone.errors import GrantConflictError
from tailbone.policy_file.hujson import HuJSONError, Node, parse
from tailbone.token.grants import ANY_AUDIENCE, GrantRule, parse_rule
from tailbone.token.policy import IssuerSettings, TokenRequest, decide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DOMAIN: Final = "tailbone.dev/"
_NO_SETTINGS: Final = IssuerSettings(issuer="", expiry_s=1)


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


class _Linter:
    def __init__(self, root: Node, server: Server) -> None:
        self._root = root
        self._server = server
        self._rules: list[tuple[int, GrantRule]] = []
        self.findings: list[Finding] = []
        self.valid = 0

    def lint(self) -> None:
        if not isinstance(self._root.value, dict):
            self._error(self._root.line, "a policy is an object")
            return
        for name, line in _repeated(self._root):
            self._error(line, f"{name} is given twice in one object: only the last one counts")
        grants = self._root.members.get("grants")
        for grant in grants.items if grants else ():
            self._lint_grant(grant)
            self._lint_misplaced(grant, apart_from="app")
        self._lint_misplaced(self._root, apart_from="grants")
        self._lint_conflicts()

    def _error(self, line: int, message: str) -> None:
        self.findings.append(Finding(line=line, level="error", message=message))

    def _warn(self, line: int, message: str) -> None:
        self.findings.append(Finding(line=line, level="warning", message=message))

    def _lint_grant(self, node: Node) -> None:
        app = node.members.get("app")
        ours = {name: values for name, values in app.members.items() if self._is_ours(name)} if app else {}
        if not ours:
            return
        for name, values in ours.items():
            self._lint_capability(name, values)
        grant = _access(node)
        if "*" in grant.src:
            self._warn(node.line, 'src is "*": this grants to every node, also those shared in')
        if "*" in grant.dst:
            self._warn(node.line, 'dst is "*": name the servers, such as tag:tailbone')
        if not grant.opens:
            self._warn(node.line, "ip is missing: this grant alone lets nobody reach the server")
        for name in ours:
            port = self._server.admin_port if name == self._server.admin_capability else self._server.port
            if not any(_reaches(rule, grant.dst, port) for rule in self._access_rules()):
                where = ", ".join(grant.dst)
                self._warn(node.line, f"nothing in grants or acls lets anybody reach port {port} of {where}")

    def _is_ours(self, name: str) -> bool:
        return name.startswith(_DOMAIN) or name in self._decoders

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
        for node in values.items:
            try:
                rule = decode(node.value)
            except ValueError as error:
                self._error(_line_of_fault(node, decode), f"void: {error}")
                continue
            self.valid += 1
            if isinstance(rule, GrantRule):
                self._rules.append((node.line, rule))

    def _access_rules(self) -> Iterator[_Access]:
        """Yield what lets nodes connect to each other."""
        for section in ("grants", "acls"):
            node = self._root.members.get(section)
            yield from map(_access, node.items if node else ())

    def _lint_misplaced(self, node: Node, *, apart_from: str = "") -> None:
        """Find capabilities where no server looks for them."""
        for name, member in node.members.items():
            if name == apart_from:
                continue
            if self._is_ours(name):
                self._error(member.line, f"{name} is read from the app of a grant only")
            self._lint_misplaced(member)
        for item in node.items:
            self._lint_misplaced(item)

    def _lint_conflicts(self) -> None:
        """Warn of two rules that cannot be granted to one caller together."""
        for (line, one), (later, other) in combinations(self._rules, 2):
            for audience in _common_audiences(one, other):
                try:
                    decide(TokenRequest(audience=audience), _NO_SETTINGS, (one, other))
                except GrantConflictError as error:
                    what = f"audience {audience}" if audience is not None else "tokens without an audience"
                    self._warn(
                        later,
                        f"{error.detail} for {what}, here and in line {line}: "
                        "a caller with both rules is refused (grant_conflict)",
                    )
                    break


def _access(node: Node) -> _Access:
    src, dst = _words(node.members.get("src")), _words(node.members.get("dst"))
    if "action" in node.members:  # an entry of acls, where each dst ends with its ports
        opens = [(host, ports) for host, _, ports in (word.rpartition(":") for word in dst)]
    else:
        opens = [(host, ports) for host in dst for ports in _words(node.members.get("ip"))]
    return _Access(src, dst, opens)


def _words(node: Node | None) -> list[str]:
    return [item for item in node.value if isinstance(item, str)] if node and node.items else []


def _reaches(rule: _Access, servers: list[str], port: int) -> bool:
    """Return whether a rule lets somebody reach a port of one of the servers, as far as their names show."""
    hosts = {host for host, ports in rule.opens if _has_port(ports, port)} if rule.src else set()
    return bool(hosts) and ("*" in hosts or "*" in servers or not hosts.isdisjoint(servers))


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
