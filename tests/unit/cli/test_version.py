"""``tailbone version``."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from tailbone import version as this
from tailbone.cli import tailbone

FACTS = {"version": this.version(), "commit": this.commit()}


def printed(*arguments: str, **environ: str) -> str:
    result = CliRunner().invoke(tailbone, list(arguments), env={"HOME": "/nonexistent", **environ})
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("command", [["version"], ["--version"]])
def test_text(command: list[str]) -> None:
    """One line with version and commit."""
    assert printed(*command) == f"tailbone {this.version()} (commit {this.commit()})\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["version", "-o", "json"],
        ["-o", "json", "version"],
        ["-o", "json", "--version"],
        ["--version", "-o", "json"],
        ["-o", "yaml", "version", "--output=json"],
    ],
)
def test_json(arguments: list[str]) -> None:
    """The format may precede or follow the command; the last one counts."""
    assert json.loads(printed(*arguments)) == FACTS


@pytest.mark.parametrize("form", ["yaml", "yml"])
def test_yaml(form: str) -> None:
    """Both names of the format work, also by variable."""
    assert yaml.safe_load(printed("version", "-o", form)) == FACTS
    assert yaml.safe_load(printed("--version", TB_OUTPUT=form)) == FACTS


def test_version_works_with_broken_settings() -> None:
    """A bug report about settings needs the version."""
    assert printed("version", TB_SERVER_PORT="http", TB_CONFIG="/nonexistent").startswith("tailbone ")
