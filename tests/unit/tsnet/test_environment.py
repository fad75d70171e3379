"""Tests of the check of tailscale's own variables."""

from __future__ import annotations

import subprocess

import pytest

from tailbone.errors import ConfigError
from tailbone.tsnet import environment


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("TS_AUTHKEY", "TS_DEBUG_DISCO"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.integration
@pytest.mark.parametrize("value", ["yes", "tRUE", " true"])
def test_a_switch_that_cannot_be_parsed_is_refused(variables: pytest.MonkeyPatch, value: str) -> None:
    """tailscale would end the process because of it; the message names the variable."""
    variables.setenv("TS_DEBUG_DISCO", value)
    with pytest.raises(ConfigError, match="TS_DEBUG_DISCO"):
        environment.check_environment()


@pytest.mark.integration
@pytest.mark.parametrize("value", ["1", "false", ""])
def test_other_switches_pass(variables: pytest.MonkeyPatch, value: str) -> None:
    """Only a value that would end the process is an error."""
    variables.setenv("TS_DEBUG_DISCO", value)
    assert environment.check_environment() is None


def test_tailbones_own_fallbacks_need_no_child(variables: pytest.MonkeyPatch) -> None:
    """The usual environment starts no process."""
    started: list[object] = []
    variables.setattr(subprocess, "run", lambda *args, **_: started.append(args))
    variables.setenv("TS_AUTHKEY", "x")
    environment.check_environment()
    assert started == []
