"""Completion in shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tailbone.cli import _COMMANDS, tailbone


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("bash", "complete -o nosort -F _tailbone_completion tailbone"),
        ("zsh", "#compdef tailbone"),
        ("fish", "complete --no-files --command tailbone"),
    ],
)
def test_a_script_for_each_shell(shell: str, words: str) -> None:
    """The script registers completion for the command tailbone."""
    result = CliRunner().invoke(tailbone, ["completion", shell])
    assert result.exit_code == 0
    assert words in result.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_bash_accepts_its_script() -> None:
    """A real bash runs the script, and then has a completion for tailbone."""
    script = CliRunner().invoke(tailbone, ["completion", "bash"]).stdout
    done = subprocess.run(
        ["bash", "-c", f"{script}\ncomplete -p tailbone"], capture_output=True, text=True, check=True
    )
    assert "_tailbone_completion" in done.stdout


def test_another_shell_is_an_error() -> None:
    """The exit code is 2, and the message lists the known shells."""
    result = CliRunner().invoke(tailbone, ["completion", "tcsh"])
    assert result.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in result.stderr


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("tailbone ", set(_COMMANDS)),
        ("tailbone server st", {"start"}),
        ("tailbone server start --log-level t", {"trace"}),
        ("tailbone server start --size ", {"2048", "3072", "4096"}),
        ("tailbone server start --components ", {"issuer", "admin"}),
        ("tailbone server start --ts-auth", {"--ts-authkey", "--ts-authkey-file"}),
        ("tailbone -o j", {"json"}),
    ],
)
def test_commands_flags_and_values_are_completed(words: str, completions: set[str]) -> None:
    """The command answers as bash's script asks it."""
    before, _, current = words.rpartition(" ")
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "_TAILBONE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(before.split())),
    }
    code = "import sys; sys.argv[0] = 'tailbone'; from tailbone.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert completions == {line.partition(",")[2] for line in done.stdout.split()}, (current, done.stderr)
