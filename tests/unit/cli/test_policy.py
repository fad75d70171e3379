"""``tailbone policy`` as a user runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from tailbone.cli import tailbone as command
from tailbone.policy_file.example import EXAMPLE

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

VOID = (
    '{"grants": [{"src": ["tag:ci"], "dst": ["tag:tailbone"], "ip": ["*"],\n'
    '"app": {"tailbone.dev/cap/token": [{"x": 1}, {}]}}]}'
)


def invoke(*arguments: Any, text: str = "") -> Result:
    return CliRunner().invoke(command, ["policy", *map(str, arguments)], input=text)


def test_an_error(tmp_path: Path) -> None:
    """An error has its file and line, and the exit code is 1."""
    file = tmp_path / "policy.hujson"
    file.write_text(VOID)
    result = invoke("lint", file)
    assert result.exit_code == 1
    assert result.stdout == f"{file}:2: error: void: Object contains unknown field `x`\n"
    assert result.stderr == "1 valid rule\n"


def test_warnings_alone_exit_with_0() -> None:
    """A warning is not an error; - is standard input."""
    result = invoke("lint", "-", text=VOID.replace("tag:ci", "*").replace('{"x": 1}, ', ""))
    assert (result.exit_code, result.stdout) == (
        0,
        '-:1: warning: src is "*": this grants to every node, also those shared in\n',
    )


def test_json() -> None:
    """JSON is a list of findings."""
    result = invoke("lint", "-", "-o", "json", text=VOID)
    assert json.loads(result.stdout) == [
        {"line": 2, "level": "error", "message": "void: Object contains unknown field `x`"}
    ]


def test_a_file_that_is_missing_or_not_text(tmp_path: Path) -> None:
    """A missing file is wrong usage; one that is not UTF-8 is an error."""
    assert invoke("lint", tmp_path / "none").exit_code == 2
    file = tmp_path / "binary"
    file.write_bytes(b"\xff")
    result = invoke("lint", file)
    assert (result.exit_code, result.stderr) == (1, f"tailbone: {file} is not UTF-8\n")


def test_the_settings_name_ports_and_capabilities(tmp_path: Path) -> None:
    """The linter expects what the server's settings say."""
    settings = tmp_path / "settings.toml"
    settings.write_text('[issuer]\ncapability = "example.com/cap/t"\n')
    result = invoke("lint", "-", "--config", settings, text=VOID)
    assert "tailbone.dev/cap/token is unknown; the server reads example.com/cap/t" in result.stdout


def test_the_example_has_no_findings() -> None:
    """The printed example passes the linter."""
    printed = invoke("example")
    assert (printed.exit_code, printed.stdout) == (0, EXAMPLE)
    result = invoke("lint", "-", text=printed.stdout)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "2 valid rules\n")
