"""The values that each kind of setting accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tailbone.config import kinds
from tailbone.config.table import BY_PATH

if TYPE_CHECKING:
    from tailbone.config.kinds import Kind


def kind(path: str) -> Kind:
    return BY_PATH[path].kind


@pytest.mark.parametrize(
    ("value", "path", "text"),
    [
        (81, "server.port", "81"),
        (81, "server.port", " 081 "),
        (4096, "keys.size", "4096"),
        ("json", "output", "JSON"),
        ("yaml", "output", "yml"),
        ("RS256", "keys.algorithm", "rs256"),
        (True, "issuer.allowShared", "yes"),
        (True, "issuer.allowShared", "T"),
        (False, "issuer.allowShared", "0"),
        (5400.0, "keys.expiry", "1h30m"),
        (0.0, "keys.backdate", "0"),
        (("issuer", "admin"), "components", "issuer admin"),
        (("admin", "issuer"), "components", "admin,issuer,admin"),
        (("a", "b"), "issuer.audiences", "\ta ,, b\n"),
        ((), "issuer.audiences", " , "),
        ("auto", "server.binding", ""),
        ("", "keys.bucket", ""),
        (("issuer.example", "127.0.0.1", "::1"), "server.allowedHosts", "Issuer.Example., 127.0.0.1 [::1]"),
        ("tskey-auth-x", "server.tailscale.authkey", "tskey-auth-x\n"),
        ("a-b.c_d", "key.prefix", "a-b.c_d"),
        ("a-b.c_d", "server.tailscale.hostname", "a-b.c_d"),
        ("A", "server.tailscale.hostname", "A"),
        ("x" * 63, "server.tailscale.hostname", "x" * 63),
    ],
)  # fmt: skip
def test_text_becomes_a_value(value: object, path: str, text: str) -> None:
    """The text of a flag or variable is parsed into a value of the right type."""
    parsed = kind(path).parse(text)
    assert (value, type(value)) == (parsed, type(parsed))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("server.port", "0"),
        ("server.port", "65536"),
        ("server.port", "-1"),
        ("server.port", "8_0"),
        ("server.port", "٨٠"),
        ("server.port", "9" * 5000),
        ("server.port", "80.0"),
        ("server.maxConnections", "0"),
        ("keys.size", "1024"),
        ("keys.size", "2049"),
        ("log.level", "warning"),
        ("log.level", ""),
        ("output", "xml"),
        ("issuer.allowShared", "maybe"),
        ("keys.expiry", "0"),
        ("keys.expiry", "999ms"),
        ("keys.expiry", "-20m"),
        ("keys.expiry", "20"),
        ("keys.backdate", "-1s"),
        ("components", ""),
        ("components", "issuer,web"),
        ("server.binding", "eth0"),
        ("keys.keyPath", ""),
        ("keys.issuer", ""),
        ("keys.issuer", "a\x00b"),
        ("keys.issuer", "a\nb"),
        ("keys.dir", ""),
        ("key.prefix", "a/b"),
        ("key.prefix", ""),
        ("server.tailscale.authkey", "two words"),
        ("server.tailscale.hostname", ""),
        ("server.tailscale.hostname", "---"),
        ("server.tailscale.hostname", "-a"),
        ("server.tailscale.hostname", "a."),
        ("server.tailscale.hostname", "\u00e4"),
        ("server.tailscale.hostname", "x" * 64),
        ("admin.capability", "admin"),
    ],
)  # fmt: skip
def test_other_text_is_refused(path: str, text: str) -> None:
    """Text that a setting does not allow is refused, with a reason that does not repeat it."""
    with pytest.raises(ValueError) as refused:
        kind(path).parse(text)
    assert str(refused.value)
    assert text not in str(refused.value) or len(text) < 3


@pytest.mark.parametrize(
    ("value", "path", "written"),
    [
        (81, "server.port", 81),
        (81, "server.port", "81"),
        (True, "log.no_color", True),
        (True, "log.no_color", "true"),
        (1200.0, "keys.expiry", "20m"),
        (0.0, "keys.rotateEvery", 0),
        (("admin",), "components", ["admin"]),
        (("issuer", "admin"), "components", "issuer admin"),
        ("tailbone", "keys.issuer", "tailbone"),
        (4096, "keys.size", 4096),
    ],
)
def test_a_toml_value_becomes_a_value(value: object, path: str, written: object) -> None:
    """Numbers and switches may be written in the file as such or as text."""
    assert value == kind(path).convert(written)


@pytest.mark.parametrize(
    ("reason", "path", "written"),
    [
        ("is true or false, not a port", "server.port", True),
        ("is a number, not a port", "server.port", 80.0),
        ("is a list, not a port", "server.port", [80]),
        ('has no unit: write text such as "20m"', "keys.expiry", 20),
        ('has no unit: write text such as "20m"', "keys.expiry", 0.5),
        ("is true or false, not text in quotes", "keys.expiry", False),
        ("is a number, not text in quotes", "keys.issuer", 5),
        ("is a table, not text in quotes", "keys.issuer", {"a": 1}),
        ("is a number, not a list", "components", 5),
        ("is a number, not text in quotes", "components", [5]),
        ("is a number, not true or false", "log.no_color", 1),
    ],
)
def test_a_value_of_another_type_is_refused(reason: str, path: str, written: object) -> None:
    """The reason names the type that was found and the type that is expected."""
    with pytest.raises(ValueError) as refused:
        kind(path).convert(written)
    assert reason == str(refused.value)


def test_the_refused_word_of_a_list_is_known() -> None:
    """An error about a list can name the one invalid word."""
    with pytest.raises(kinds.BadItemError) as refused:
        kind("components").parse("issuer,web")
    assert refused.value.item == "web"
