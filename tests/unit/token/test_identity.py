"""A whois answer becomes an identity that is safe in a token."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbone.errors import AccessError, ExpiredCallerError, SharedCallerError, UnknownCallerError
from tailbone.text import safe_text
from tailbone.token.identity import Identity

PERSON = (
    b'{"node_id":"nStable","node":"laptop.dev.tailnet.test","user_id":123,"login":"dev@example.com",'
    b'"display_name":"Dev","tags":[],"shared":false,"expired":false,"addresses":["100.64.0.2"],'
    b'"capabilities":{"tailbone.dev/cap/admin":["{\\"roles\\":[\\"admin\\"]}"]}}'
)
TAGGED = (
    b'{"node_id":"nCi","node":"ci.dev.tailnet.test","user_id":0,"login":"","display_name":"",'
    b'"tags":["tag:ci"],"shared":false,"expired":false,"addresses":["100.64.0.3"],"capabilities":{}}'
)


def test_a_person_is_decoded_completely() -> None:
    """Every member of the whois answer is in the identity."""
    assert Identity.decode(PERSON) == Identity(
        node_id="nStable",
        node="laptop.dev.tailnet.test",
        user_id=123,
        login="dev@example.com",
        display_name="Dev",
        addresses=("100.64.0.2",),
        capabilities={"tailbone.dev/cap/admin": ('{"roles":["admin"]}',)},
    )


def test_a_persons_subject_is_the_user_id() -> None:
    """A login name can be reassigned to another user, a user id cannot."""
    assert Identity.decode(PERSON).subject == "user:123"


def test_a_tagged_nodes_subject_is_the_stable_node_id() -> None:
    """A tagged node has no user, and its name can be reused."""
    assert Identity.decode(TAGGED).subject == "node:nCi"


def test_tags_win_over_a_user() -> None:
    """A tagged node's subject is the node, even if the answer also names a user."""
    assert Identity(node_id="nCi", node="ci", user_id=7, login="dev", tags=("tag:ci",)).subject == "node:nCi"


@pytest.mark.parametrize(("answer", "name"), [(PERSON, "dev@example.com"), (TAGGED, "tag:ci")])
def test_a_person_is_known_by_login_and_a_tagged_node_by_its_tags(answer: bytes, name: str) -> None:
    """This is what logs and the admin API show."""
    assert Identity.decode(answer).login_or_tags == name


def test_a_member_of_the_tailnet_passes() -> None:
    """Its key has not expired, and it is not shared in."""
    Identity.decode(PERSON).check_membership()


@pytest.mark.parametrize(
    ("changed", "error"), [({"expired": True}, ExpiredCallerError), ({"shared": True}, SharedCallerError)]
)
def test_nodes_that_are_not_members_are_refused(changed: dict[str, bool], error: type[AccessError]) -> None:
    """An expired key no longer proves who calls; another tailnet vouches for a node that is shared in."""
    with pytest.raises(error):
        msgspec.structs.replace(Identity.decode(PERSON), **changed).check_membership()


def test_shared_nodes_can_be_allowed_and_expired_ones_cannot() -> None:
    """The setting allowShared is about sharing alone."""
    shared = msgspec.structs.replace(Identity.decode(PERSON), shared=True)
    shared.check_membership(allow_shared=True)
    with pytest.raises(ExpiredCallerError):
        msgspec.structs.replace(shared, expired=True).check_membership(allow_shared=True)


def test_unknown_members_are_ignored() -> None:
    """A newer native library may add members."""
    assert Identity.decode(PERSON[:-1] + b',"new":{"a":[1]}}') == Identity.decode(PERSON)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}",
        b'{"node":"x","user_id":1}',
        PERSON.replace(b"123", b'"123"'),
        PERSON.replace(b"nStable", b""),
        PERSON.replace(b"nStable", b"n*"),
        PERSON.replace(b"nStable", b"n:1"),
        PERSON.replace(b"nStable", b"n" * 65),
        PERSON.replace(b"nStable", "nÄ".encode()),
        PERSON.replace(b"nStable", b"nStable\\n"),
        PERSON.replace(b"123", b"0"),
        PERSON.replace(b"123", b"-1"),
        PERSON.replace(b"laptop.dev", b"\xff"),
        PERSON.replace(b'"Dev"', b'"\\ud800"'),
    ],
)
def test_an_answer_without_a_subject_is_refused(answer: bytes) -> None:
    """There is no anonymous identity: an answer needs a node, and a user or tags."""
    with pytest.raises(UnknownCallerError):
        Identity.decode(answer)


def test_a_refusal_does_not_repeat_the_answer() -> None:
    """The caller only learns that it is unknown; details of the answer go to the log."""
    with pytest.raises(UnknownCallerError) as caught:
        Identity.decode(PERSON.replace(b"123", b'"secret"'))
    assert caught.value.message == "your node could not be identified"
    assert "user_id" in caught.value.detail


@pytest.mark.parametrize("name", ["\U0001f469\u200d\U0001f4bb", "می\u200cخواهم"])
def test_joiners_are_kept_only_in_a_display_name(name: str) -> None:
    """Emoji and several scripts need joiners; in a login they could only deceive."""
    person = msgspec.json.decode(PERSON) | {"display_name": name, "login": name}
    identity = Identity.decode(msgspec.json.encode(person))
    assert (identity.display_name, identity.login) == (name, safe_text(name))
    assert identity.login != name


@given(*[st.text(st.characters(exclude_categories=["Cs"]), max_size=40)] * 4)
def test_every_name_of_an_identity_is_cleaned(node: str, login: str, display_name: str, tag: str) -> None:
    """Each name of an identity is safe to put in a token."""
    answer = {"node_id": "n1", "node": node, "user_id": 1, "login": login, "display_name": display_name}
    identity = Identity.decode(msgspec.json.encode(answer | {"tags": [tag]}))
    assert (identity.node, identity.login, identity.tags) == (
        safe_text(node),
        safe_text(login),
        (safe_text(tag),),
    )
    assert safe_text(identity.display_name.replace("\u200c", "").replace("\u200d", "")) == (
        safe_text(display_name.replace("\u200c", "").replace("\u200d", ""))
    )
