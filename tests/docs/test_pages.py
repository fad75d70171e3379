"""The pages in docs/: every command of tailbone in them exists, with all its flags."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from tailbone.cli import tailbone

DOCS = Path(__file__).parents[2] / "docs"
GROUPS = ("config", "keys", "policy", "server", "vault")


def commands() -> list[str]:
    """Return the commands in blocks for a shell."""
    found = []
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        blocks = "".join(re.findall(r"^```sh\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE))
        lines = blocks.replace("\\\n", " ").splitlines()
        found += [line for line in lines if line.startswith("tailbone ")]
    return found


@pytest.mark.parametrize("command", commands())
def test_the_command_exists(command: str) -> None:
    """An unknown command, flag or option would be an error, even before its help is shown."""
    _, *words = shlex.split(command)
    place = 2 if words[0] in GROUPS else 1
    result = CliRunner().invoke(tailbone, [*words[:place], "--help", *words[place:]])
    assert result.exit_code == 0, result.output


def test_it_is_installed_from_a_checkout() -> None:
    """The package index may have another package of this name."""
    pages = [*DOCS.glob("*.md"), DOCS.parent / "README.md"]
    assert not [page.name for page in pages if "pip install tailbone" in page.read_text()]


def test_an_unknown_flag_would_be_noticed() -> None:
    """The check of the other tests works."""
    assert CliRunner().invoke(tailbone, ["exec", "--help", "--no-such-flag"]).exit_code == 2
    assert len(commands()) > 15
