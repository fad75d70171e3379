"""Access: who may call what, over every role, method, mode and malformed capability."""

from __future__ import annotations

from typing import Any

import pytest
from harness.grants import as_json
from hypothesis import given
from hypothesis import strategies as st

from tailbone.admin._proto import admin_pb2 as pb
from tailbone.admin.access import Access, Role, needed_role
from tailbone.errors import AccessError, ExpiredCallerError, SharedCallerError
from tailbone.token.identity import Identity

CAPABILITY = "tailbone.dev/cap/admin"
ACL = Access(mode="acl", capability=CAPABILITY)
GRANT = Access(mode="grant", capability=CAPABILITY)
METHODS = {
    "/proto.AdminService/ListKeys": "viewer",
    "/proto.AdminService/GetStatus": "viewer",
    "/proto.AdminService/Explain": "viewer",
    "/proto.AdminService/GenerateNewKeys": "operator",
    "/proto.AdminService/RemoveKey": "admin",
}
INCLUDED = {"viewer": 1, "operator": 2, "admin": 3}
HEALTH = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("roles"), inner),
)


def caller(*values: Any, **facts: Any) -> Identity:
    given = {"node_id": "n1", "node": "a.dev.tailnet.test", "user_id": 1, "login": "dev@example.com"}
    return Identity(**given | facts, capabilities={CAPABILITY: as_json(*values)} if values else {})


def granted_role(*values: Any) -> Role | None:
    return GRANT.role_of(caller(*values))


def may(identity: Identity, method: str, access: Access = GRANT) -> bool:
    try:
        access.admit(identity, method)
    except AccessError:
        return False
    return True


@pytest.mark.parametrize("role", [None, "viewer", "operator", "admin"])
@pytest.mark.parametrize("method", METHODS)
def test_every_role_on_every_method(role: str | None, method: str) -> None:
    """A role may call what it and the lower ones may; a caller without a role may call nothing."""
    identity = caller() if role is None else caller({"roles": [role]})
    assert may(identity, method) == (role is not None and INCLUDED[role] >= INCLUDED[METHODS[method]])


@pytest.mark.parametrize("method", METHODS)
def test_acl_asks_for_no_role(method: str) -> None:
    """With access by ACL, every caller that reaches the port may call every method."""
    assert may(caller(), method, ACL) is True


@pytest.mark.parametrize("access", [ACL, GRANT], ids=["acl", "grant"])
@pytest.mark.parametrize("method", [*METHODS, *HEALTH])
def test_shared_nodes_are_refused(access: Access, method: str) -> None:
    """A node shared in from another tailnet is refused in both modes, whatever role it holds."""
    with pytest.raises(SharedCallerError):
        access.admit(caller({"roles": ["admin"]}, shared=True), method)


@pytest.mark.parametrize("access", [ACL, GRANT], ids=["acl", "grant"])
def test_expired_nodes_are_refused(access: Access) -> None:
    """A node whose key has expired is refused in both modes."""
    with pytest.raises(ExpiredCallerError):
        access.admit(caller({"roles": ["admin"]}, expired=True), "/proto.AdminService/ListKeys")


@pytest.mark.parametrize("method", HEALTH)
def test_health_needs_a_known_caller_only(method: str) -> None:
    """The health service answers a caller without a role."""
    assert may(caller(), method) is True


def test_every_method_of_the_service_has_a_role() -> None:
    """The table of roles has all methods of admin.proto."""
    service = pb.DESCRIPTOR.services_by_name["AdminService"]
    assert sorted(f"/proto.AdminService/{method.name}" for method in service.methods) == sorted(METHODS)


def test_unknown_methods_need_the_highest_role() -> None:
    """A method without a row in the table needs the role admin."""
    assert needed_role("/proto.AdminService/Later") is Role.ADMIN


def test_the_refusal_says_what_to_grant() -> None:
    """A caller without the role learns which one it needs, and the capability that gives it."""
    with pytest.raises(AccessError, match=r'role operator.*tailbone\.dev/cap/admin.*"roles": \["operator"\]'):
        GRANT.admit(caller({"roles": ["viewer"]}), "/proto.AdminService/GenerateNewKeys")


def test_another_capability_grants_nothing() -> None:
    """Only the capability named in the settings counts."""
    other = Access(mode="grant", capability="example.com/cap/other")
    assert may(caller({"roles": ["admin"]}), "/proto.AdminService/ListKeys", other) is False


@pytest.mark.parametrize(
    "value",
    [
        None,
        "admin",
        ["admin"],
        7,
        {},
        {"roles": None},
        {"roles": "admin"},
        {"roles": {"admin": True}},
        {"roles": ["admin", 1]},
        {"roles": [["admin"]]},
        {"role": ["admin"]},
        {"Roles": ["admin"]},
        {"roles": ["Admin"]},
        {"roles": ["admin "]},
        {"roles": ["root"]},
        {"roles": []},
        {"roles": ["viewer", "root"]},
        {"roles": ["viewer"], "note": 1},
    ],
)
def test_malformed_values_grant_nothing(value: Any) -> None:
    """A value that is not exactly an object with a list of known role names is void."""
    assert granted_role(value) is None
    assert [void.source for void in GRANT.granted(caller(value))[1]] == [*as_json(value)]


def test_the_other_values_count_beside_a_malformed_one() -> None:
    """The highest role of the valid values counts, beside void ones."""
    values = [
        7,
        {"roles": ["viewer"]},
        {"roles": "admin"},
        {"roles": ["operator"]},
        {"roles": ["admin", "root"]},
    ]
    assert granted_role(*values) is Role.OPERATOR


@given(values=st.lists(JSON))
def test_any_json_gives_only_the_roles_that_it_names(values: list[Any]) -> None:
    """For any JSON in the capability there is no exception, and a role only where a list names it."""
    role = granted_role(*values)
    named = {
        name
        for value in values
        if isinstance(value, dict) and isinstance(value.get("roles"), list)
        for name in value["roles"]
        if isinstance(name, str)
    }
    assert role is None or role.word in named
