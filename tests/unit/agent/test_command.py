"""A command with tokens: its files, its variables, its end."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from harness.web import Page, WebServer

from tailbone.agent.command import VaultLogin, Wanted, run_with_tokens
from tailbone.agent.files import TokenFile
from tailbone.agent.sdk import Setup
from tailbone.errors import IssuerUnreachableError

if TYPE_CHECKING:
    from pathlib import Path

    from unit.agent.conftest import Issuer


def shell(issuer: Issuer, wanted: Wanted, folder: Path, script: str) -> int:
    """Run a script with tokens, in the folder."""
    environment = {"PATH": os.environ["PATH"], "FOLDER": str(folder)}
    return run_with_tokens(issuer, wanted, folder, ["sh", "-c", script], environment)


def test_files_and_variables_are_there_when_it_starts(issuer: Issuer, tmp_path: Path) -> None:
    """An SDK's too; its status is the command's."""
    setup = Setup("X", TokenFile(path=tmp_path / "x", audience="a"), {"X": "1"}, {tmp_path / "doc": "text"})
    wanted = Wanted([setup], [TokenFile(path=tmp_path / "y", audience="b")], {"TOKEN": "c"})
    script = "cat $FOLDER/x $FOLDER/y $FOLDER/doc > $FOLDER/out; echo $X $TOKEN >> $FOLDER/out; exit 3"
    assert shell(issuer, wanted, tmp_path, script) == 3
    assert (tmp_path / "out").read_text() == "token-2token-1text1 token-3\n"


def test_its_agent_is_at_the_variable(issuer: Issuer, tmp_path: Path) -> None:
    """For further commands of tailbone; the socket is for this user alone."""
    script = "test -S $TAILBONE_AGENT && stat -c %a $TAILBONE_AGENT > $FOLDER/out"
    assert shell(issuer, Wanted(), tmp_path, script) == 0
    assert (tmp_path / "out").read_text() == "600\n"


def test_without_a_token_it_does_not_run(issuer: Issuer, tmp_path: Path) -> None:
    """The issuer's failure is raised."""
    issuer.error = IssuerUnreachableError("away")
    with pytest.raises(IssuerUnreachableError):
        shell(issuer, Wanted(variables={"TOKEN": "a"}), tmp_path, "touch $FOLDER/ran")
    assert not (tmp_path / "ran").exists()


def test_a_login_to_vault_is_the_commands(issuer: Issuer, tmp_path: Path) -> None:
    """In the variables of Vault and OpenBao."""
    with WebServer() as web:
        answer = {"auth": {"client_token": "hvs.x", "lease_duration": 600, "renewable": True}}
        web.pages["/v1/auth/jwt/login"] = Page(json.dumps(answer).encode())
        wanted = Wanted(vault=VaultLogin(web.url, "ci", "vault"))
        script = "echo $VAULT_ADDR $VAULT_TOKEN $BAO_ADDR $BAO_TOKEN > $FOLDER/out"
        assert shell(issuer, wanted, tmp_path, script) == 0
        assert (tmp_path / "out").read_text() == f"{web.url} hvs.x {web.url} hvs.x\n"
