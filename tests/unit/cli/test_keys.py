"""``tailbone keys`` as a user runs it: in its own process, against a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml

from tailbone import errors
from tailbone.admin.service import ServerStatus
from tailbone.cli import keys
from tailbone.config.model import Config
from tailbone.token.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.admin import Admin, GoServer, Running

    Run = Callable[..., Any]

GO_KEY = {"key_id": "tb-1795518230", "algorithm": "RS256", "created_at": 1795518230}


def there(server: Running | GoServer) -> tuple[object, ...]:
    return "--host", "127.0.0.1", "--port", server.port


async def test_list_as_json(tailbone: Run, run: Running) -> None:
    """The JSON of list is the Go program's array, with further members at the end."""
    ended = await tailbone("keys", "list", *there(run), "-o", "json")
    assert (ended.status, ended.err) == (0, "")
    assert json.loads(ended.out) == [GO_KEY | {"state": "active", "foreign": False}]


async def test_list_of_a_go_server_as_json(tailbone: Run, go_server: GoServer) -> None:
    """The JSON of a Go server's keys is byte for byte the Go client's."""
    ended = await tailbone("keys", "list", *there(go_server), "-o", "json")
    assert ended == (0, '[{"key_id": "tb-1795518230", "algorithm": "RS256", "created_at": 1795518230}]\n', "")


async def test_no_keys_as_json(tailbone: Run, run: Running) -> None:
    """No keys are an empty array."""
    run.lifecycle.keys.clear()
    assert await tailbone("keys", "list", *there(run), "-o", "json") == (0, "[]\n", "")


async def test_generate_as_json(tailbone: Run, run: Running) -> None:
    """The JSON of generate is an array of one object with the member key."""
    ended = await tailbone("keys", "generate", *there(run), "-o", "json")
    (made,) = json.loads(ended.out)
    assert list(made) == ["key"]
    assert (
        made["key"].items()
        >= {"key_id": "tb-1795518232", "algorithm": "RS256", "created_at": 1795518230}.items()
    )


async def test_remove_as_json(tailbone: Run, run: Running) -> None:
    """The JSON of remove is the array of the keys that are left."""
    await tailbone("keys", "generate", *there(run))
    ended = await tailbone("keys", "remove", "tb-1795518230", "--yes", *there(run), "-o", "json")
    assert (ended.status, [key["key_id"] for key in json.loads(ended.out)]) == (0, ["tb-1795518232"])


@pytest.mark.parametrize("form", ["yaml", "yml"])
async def test_list_as_yaml(tailbone: Run, run: Running, form: str) -> None:
    """The YAML of list has the same content as its JSON."""
    ended = await tailbone("keys", "list", *there(run), "-o", form)
    assert yaml.safe_load(ended.out) == [GO_KEY | {"state": "active", "foreign": False}]


async def test_list_as_text(tailbone: Run, run: Running) -> None:
    """In a pipe, the text is a header and one line for each key, in aligned columns."""
    ended = await tailbone("keys", "list", *there(run))
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "KEY ID         ALGORITHM  STATE   CREATED               NEXT",
        "tb-1795518230  RS256      active  2026-11-24 11:03:50Z",
    ]


@pytest.mark.parametrize("words", [("keys", "ls"), ("key", "list"), ("key", "ls")], ids=" ".join)
async def test_aliases(tailbone: Run, run: Running, words: tuple[str, ...]) -> None:
    """The Go program's aliases work."""
    assert (await tailbone(*words, *there(run), "-o", "json")).status == 0
    assert run.lifecycle.asked == [("list",)]


async def test_list_on_a_terminal(tailbone: Run, run: Running) -> None:
    """On a terminal the text is a table with the state in colour, unless NO_COLOR is set."""
    plain = await tailbone(
        "keys", "list", *there(run), screen=True, NO_COLOR="1", TERM="xterm", COLUMNS="100"
    )
    assert [line.split() for line in plain.out.splitlines()][1] == [
        "tb-1795518230",
        "RS256",
        "active",
        "2026-11-24",
        "11:03:50Z",
    ]
    coloured = await tailbone("keys", "list", *there(run), screen=True, TERM="xterm", COLUMNS="100")
    assert "\x1b[32mactive" in coloured.out


async def test_flags_before_the_subcommand(tailbone: Run, run: Running) -> None:
    """Flags of keys are accepted before the subcommand, and the last one counts."""
    ended = await tailbone("keys", "--host", "127.0.0.1", "--port", 1, "list", "--port", run.port)
    assert ended.status == 0


async def test_server_by_variables(tailbone: Run, run: Running) -> None:
    """TB_ADMIN_CLIENT_HOST and TB_ADMIN_CLIENT_PORT name the server."""
    ended = await tailbone(
        "keys", "list", TB_ADMIN_CLIENT_HOST="127.0.0.1", TB_ADMIN_CLIENT_PORT=str(run.port)
    )
    assert ended.status == 0


async def test_server_by_file(tailbone: Run, run: Running, tmp_path: Path) -> None:
    """The settings file names the server."""
    (tmp_path / ".tailbone.toml").write_text(f'[admin.client]\nhost = "127.0.0.1"\nport = {run.port}\n')
    assert (await tailbone("keys", "list")).status == 0


def test_the_default_host_is_tailbone() -> None:
    """Without a host, the client connects to the server's default name on the tailnet."""
    with keys.admin_client(Config()) as client:
        assert client.address == "tailbone:50051"


async def test_size_is_sent_when_set(tailbone: Run, run: Running, tmp_path: Path) -> None:
    """Size and algorithm are sent when a flag, a variable or the file sets them, even to a default."""
    await tailbone("keys", "generate", "-s", 3072, *there(run))
    await tailbone("keys", "generate", "--algorithm", "ES256", *there(run))
    await tailbone("keys", "generate", *there(run), TB_KEYS_SIZE="2048")
    (tmp_path / ".tailbone.toml").write_text('[keys]\nalgorithm = "RS256"\nsize = 4096\n')
    await tailbone("keys", "generate", *there(run))
    assert run.lifecycle.asked == [
        ("generate", None, 3072),
        ("generate", "ES256", None),
        ("generate", None, 2048),
        ("generate", "RS256", 4096),
    ]


async def test_generate_leaves_size_and_algorithm_to_the_server(tailbone: Run, run: Running) -> None:
    """If they are not set, the request does not contain them."""
    await tailbone("keys", "generate", *there(run))
    assert run.lifecycle.asked == [("generate", None, None)]


async def test_a_go_server_that_ignores_the_size(tailbone: Run, go_server: GoServer) -> None:
    """This is an error: one line, exit code 1, nothing on standard output."""
    ended = await tailbone("keys", "generate", "--size", 4096, *there(go_server), "-o", "json")
    assert (ended.status, ended.out) == (1, "")
    assert "too old" in ended.err
    assert ended.err.count("\n") == 1


async def test_generate_of_a_go_server(tailbone: Run, go_server: GoServer) -> None:
    """A Go server's key is printed as the Go client prints it."""
    ended = await tailbone("keys", "generate", *there(go_server), "-o", "json")
    assert json.loads(ended.out) == [{"key": GO_KEY}]


async def test_remove_asks(tailbone: Run, run: Running) -> None:
    """On a terminal, remove explains the effect and asks; yes removes."""
    await tailbone("keys", "generate", *there(run))
    ended = await tailbone("keys", "remove", "tb-1795518230", *there(run), "-o", "json", typed="y\n")
    assert ended.status == 0
    assert "Tokens signed with tb-1795518230 stop verifying. Remove it? [y/N]" in ended.err
    assert [key["key_id"] for key in json.loads(ended.out)] == ["tb-1795518232"]


@pytest.mark.parametrize("answer", ["n\n", "\n"])
async def test_the_answer_no_keeps_the_key(tailbone: Run, run: Running, answer: str) -> None:
    """With the answer no, or none, the exit code is 0 and the key stays."""
    ended = await tailbone("keys", "remove", "tb-1795518230", *there(run), typed=answer)
    assert (ended.status, ended.out.strip()) == (0, "")
    assert list(run.lifecycle.keys) == ["tb-1795518230"]


async def test_remove_without_a_terminal(tailbone: Run, run: Running) -> None:
    """Without a terminal, remove needs --yes; otherwise it is a usage error before any call."""
    ended = await tailbone("keys", "remove", "tb-1795518230", *there(run))
    assert ended.status == 2
    assert "--yes" in ended.err
    assert run.lifecycle.asked == []


async def test_remove_yes_asks_nothing(tailbone: Run, run: Running) -> None:
    """With -y the key is removed in one call."""
    await tailbone("keys", "remove", "-y", "tb-1795518230", *there(run))
    assert run.lifecycle.asked == [("remove", "tb-1795518230")]


async def test_remove_of_the_last_signing_key(tailbone: Run, run: Running) -> None:
    """The question and a warning afterwards say that no key is left to sign."""
    ended = await tailbone("keys", "remove", "tb-1795518230", *there(run), typed="y\n")
    assert ended.status == 0
    assert "tb-1795518230 is the last key that can sign" in ended.err
    assert "warning: no signing key is left" in ended.err


async def test_remove_of_a_foreign_key(tailbone: Run, run: Running) -> None:
    """The question says when the key is another server's."""
    key = run.lifecycle.keys["tb-1795518230"]
    run.lifecycle.keys["other-1"] = msgspec.structs.replace(key, key_id="other-1", foreign=True)
    ended = await tailbone("keys", "remove", "other-1", *there(run), typed="n\n")
    assert "other-1 is not one of this server's keys" in ended.err


@pytest.mark.parametrize("how", ["ask", "yes"])
async def test_remove_of_an_unknown_key(tailbone: Run, run: Running, how: str) -> None:
    """An unknown kid is one line with exit code 1, without a question."""
    extra = {"typed": ""} if how == "ask" else {}
    ended = await tailbone(
        "keys", "remove", "tb-1", *(["--yes"] if how == "yes" else []), *there(run), **extra
    )
    assert (ended.status, ended.out) == (1, "")
    assert "`tailbone keys list` shows the keys" in ended.err
    assert "Remove it?" not in ended.err


async def test_remove_without_a_kid(tailbone: Run) -> None:
    """A missing KEY_ID is a usage error."""
    assert (await tailbone("keys", "remove")).status == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--size", 1024),
        ("--algorithm", "none"),
        ("--algorithm", "ES256", "--size", 4096),
        ("--port", 0),
        ("--nope",),
    ],
)
async def test_wrong_usage(tailbone: Run, run: Running, arguments: tuple[object, ...]) -> None:
    """Values that are not allowed end with exit code 2 before the server is asked."""
    ended = await tailbone("keys", "generate", *there(run), *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert run.lifecycle.asked == []


async def test_failures_are_one_line(tailbone: Run, run: Running, closed_port: int, http_port: int) -> None:
    """Unreachable, wrong port, S3 refused: each one line on standard error, and exit code 1."""
    run.lifecycle.fails = errors.StoreDeniedError(
        "S3 refused s3:PutObject on the bucket: grant it to the server"
    )
    for port, words in (
        (closed_port, "nothing listens on"),
        (http_port, "speaks HTTP, not gRPC"),
        (run.port, "S3 refused s3:PutObject on the bucket: grant it to the server"),
    ):
        ended = await tailbone("keys", "generate", "--host", "127.0.0.1", "--port", port)
        assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)
        assert words in ended.err


@pytest.mark.parametrize("command", ["list", "generate"])
async def test_the_error_of_a_change_says_that_nothing_was_changed(
    tailbone: Run, run: Running, command: str
) -> None:
    """The error of a read does not mention changes."""
    run.lifecycle.fails = errors.StoreError("S3 is away")
    ended = await tailbone("keys", command, *there(run))
    assert "S3 is away; " in ended.err
    assert ended.err.endswith("try again when the bucket answers\n")
    assert ("nothing was changed" in ended.err) is (command == "generate")


async def test_permission_denied(tailbone: Run, granting: Running) -> None:
    """A refusal says which grant is missing, in one line."""
    ended = await tailbone("keys", "list", *there(granting))
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "this needs the role viewer" in ended.err


async def test_traceback_at_trace_only(tailbone: Run, closed_port: int) -> None:
    """The traceback is shown with --log-level trace, and only then."""
    address = ("--host", "127.0.0.1", "--port", closed_port)
    assert "Traceback" in (await tailbone("keys", "list", *address, "--log-level", "trace")).err
    assert "Traceback" not in (await tailbone("keys", "list", *address, "--log-level", "debug")).err


async def test_status_as_json(tailbone: Run, start_admin: Callable[..., Any]) -> None:
    """The JSON of status is one object with the server's facts."""
    facts = ServerStatus(version="1.2.3", issuer="https://issuer.example")
    async with start_admin(status=lambda: facts) as run:
        ended = await tailbone("keys", "status", *there(run), "-o", "json")
    status = json.loads(ended.out)
    assert status.pop("started_at") > 0
    assert status == {
        "version": "1.2.3",
        "commit": "",
        "ready": True,
        "reasons": [],
        "signing_key_id": "",
        "issuer": "https://issuer.example",
        "jwks": "",
        "caller": "dev@example.com",
        "roles": ["viewer", "operator", "admin"],
        "void_rules": 0,
    }


async def test_status_as_text(tailbone: Run, start_admin: Callable[..., Any]) -> None:
    """The text of status says why no token can be issued, and who the caller is."""
    reason = errors.Problem("no_key", "keys: none can sign")
    facts = ServerStatus(version="1.2.3", commit="abc", reasons=[reason])
    async with start_admin(status=lambda: facts) as run:
        run.caller = Identity(node_id="n1", node="ci.dev.tailnet.test", tags=("tag:ci",))
        ended = await tailbone("keys", "status", *there(run))
    lines = ended.out.splitlines()
    assert lines[0] == "server    tailbone 1.2.3 (commit abc)"
    assert lines[2:4] == ["tokens    no", "          keys: none can sign"]
    assert lines[-1] == "you are   tag:ci (viewer, operator, admin)"


async def test_what_list_imports(tailbone: Run, run: Running) -> None:
    """A list in a pipe imports neither the server's libraries nor rich."""
    ended = await tailbone("keys", "list", *there(run), PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in ended.err.splitlines()}
    assert "tailbone.admin.client" in imported
    heavy = "sanic aiobotocore botocore jwcrypto tailbone.tsnet _cffi_backend rich"
    assert imported & set(heavy.split()) == set()


async def test_local_list_asks_no_server(
    admin: Admin, tailbone: Callable[..., Any], closed_port: int
) -> None:
    """With --local the keys of the folder are listed without a server."""
    ended = await tailbone(
        "keys", "list", "--local", "--dir", admin.folder, "--port", closed_port, "-o", "json"
    )
    (key,) = json.loads(ended.out)
    assert (key["key_id"], key["algorithm"], key["state"]) == (admin.published[0], "RS256", "active")


async def test_local_list_takes_keys_dir(admin: Admin, tailbone: Callable[..., Any]) -> None:
    """The folder is keys.dir, which the variable sets, too."""
    ended = await tailbone("keys", "ls", "--local", TB_KEYS_DIR=str(admin.folder))
    assert (ended.status, admin.published[0] in ended.out) == (0, True)


async def test_local_list_names_what_is_broken(admin: Admin, tailbone: Callable[..., Any]) -> None:
    """A key with a truncated private half is listed with the reason, beside the good keys."""
    (admin.folder / "tb-1795518230.private.jwk").write_text('{"kty": "RSA"')
    (admin.folder / "tb-1795518230.private.jwk").chmod(0o600)
    ended = await tailbone("keys", "list", "--local", "--dir", admin.folder, "-o", "json")
    by_kid = {key["key_id"]: key for key in json.loads(ended.out)}
    assert by_kid["tb-1795518230"]["state"] == "faulty"
    assert "private half" in by_kid["tb-1795518230"]["fault"]
    assert "fault" not in by_kid[admin.published[0]]


async def test_local_list_without_a_folder(tailbone: Callable[..., Any], tmp_path: Path) -> None:
    """A folder that does not exist is an error in one line, not an empty list."""
    ended = await tailbone("keys", "list", "--local", "--dir", tmp_path / "nowhere")
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert "nowhere" in ended.err
