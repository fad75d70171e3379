"""``tailbone exec``: a command with tokens, and the flags that are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from harness.issuers import LoopbackIssuer


async def test_the_command_has_the_token_and_its_status_counts(
    issuer: LoopbackIssuer, tailbone: Callable[..., Awaitable[Any]]
) -> None:
    """The token is in a variable."""
    arguments = ("exec", "--env", "service=TOKEN", "--", "sh", "-c", "echo $TOKEN; exit 7")
    ended = await tailbone(*arguments, TAILBONE_ISSUE_URL=issuer.web.url)
    assert (ended.status, ended.out) == (7, f"{issuer.token}\n")


def test_a_command_that_is_not_there(issuer: LoopbackIssuer) -> None:
    """The status is that of a shell, and nothing is asked."""
    result = issuer.run("exec", "--env", "service=TOKEN", "--", "/nonexistent/command")
    assert result.exit_code == 127
    assert result.stderr.startswith("tailbone: ")
    assert issuer.web.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vault", "https://vault.example"], "--vault must be ADDR:ROLE"),
        (["--vault", "vault:role"], "--vault must be ADDR:ROLE"),
        (["--env", "service"], "--env"),
        (["--file", "service"], "--file"),
    ],
)
def test_flags_that_cannot_be_used(issuer: LoopbackIssuer, arguments: list[str], message: str) -> None:
    """The message names the flag."""
    result = issuer.run("exec", *arguments, "--", "true")
    assert result.exit_code == 2
    assert message in result.stderr
