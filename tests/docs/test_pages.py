"""README and the pages of docs/: every block of code is parsed, and every command of tailbone exists."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import botocore.session
import click
import pytest
import yaml
from click.testing import CliRunner

from docs.pages import DOCS, PAGES, ROOT, Block, blocks, lines, read, tailbone_commands
from tailbone.cli import tailbone
from tailbone.cli.options import Invocation
from tailbone.config.load import load
from tailbone.policy_file.lint import Server, lint

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [
    (block.page, words)
    for block in BLOCKS
    if block.language == "sh"
    for words in tailbone_commands(block.text)
]


# --- blocks of code


def parse_shell(block: Block) -> None:
    """Parse the block by bash, and run nothing."""
    bash = shutil.which("bash")
    assert bash
    parsed = subprocess.run([bash, "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert (parsed.returncode, parsed.stderr) == (0, "")


def parse_python(block: Block) -> None:
    """Compile the block; each module that it imports must exist, with the imported names of tailbone."""
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(find_spec(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            assert find_spec(node.module)
            if node.module.partition(".")[0] == "tailbone":
                module = import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)


def parse_json(block: Block) -> None:
    """Parse the block as JSON; in a policy, the server's own rules find nothing to correct."""
    if "grants" in json.loads(block.text):
        config = load({}, environ={})
        server = Server(
            token_capability=config.issuer.capability,
            admin_capability=config.admin.capability,
            port=config.server.port,
            admin_port=config.admin.port,
        )
        findings, valid = lint(block.text, server)
        assert (findings, valid) == ([], 1)


def parse_yaml(block: Block) -> None:
    """Parse the block as YAML, without any other type than YAML's own."""
    assert all(document is not None for document in yaml.safe_load_all(block.text))


def parse_toml(block: Block, tmp_path: Path) -> None:
    """Load the block as a settings file."""
    path = tmp_path / "tailbone.toml"
    path.write_text(block.text)
    load({}, environ={}, config_file=path)


def run_by(test: str) -> Callable[[Block], None]:
    """Return a check that the named test starts the program with the blocks of this page."""

    def check(block: Block) -> None:
        page = block.page.rpartition("/")[2]
        assert page in (ROOT / test).read_text()

    return check


def is_a_file_of_deploy(block: Block) -> None:
    """Check that the block is a file that other tests judge."""
    assert block.text in {path.read_text() for path in (ROOT / "deploy").rglob("*") if path.is_file()}


def is_in_a_generated_part(block: Block) -> None:
    """Check that the block is one of doctor's texts, which tests/consumers give to their verifiers."""
    page = (ROOT / block.page).read_text()
    generated = page.partition("<!-- made by ")[2].partition("<!-- /made -->")[0]
    assert f"```{block.language}\n{block.text}```" in generated


PLAIN = {
    "README.md": "the drawing, and the output of dev, which test_commands.py compares",
    "docs/audit.md": "the settings of logrotate",
    "docs/index.md": "the drawing",
    "docs/nats.md": "the settings of a NATS server, which tests/consumers/test_nats.py starts",
    "docs/start.md": "the output of dev",
}
"""The pages with blocks of no language, and what they are."""


def is_known(block: Block) -> None:
    """Check that the page's blocks of no language are known."""
    assert block.page in PLAIN


PARSERS: dict[str, Callable[[Block], None]] = {
    "": is_known,
    "caddy": run_by("tests/consumers/test_proxies.py"),
    "haproxy": run_by("tests/consumers/test_proxies.py"),
    "ini": is_a_file_of_deploy,
    "json": parse_json,
    "lua": run_by("tests/consumers/test_proxies.py"),
    "nginx": run_by("tests/consumers/test_proxies.py"),
    "python": parse_python,
    "sh": parse_shell,
    "sql": is_in_a_generated_part,
    "text": is_in_a_generated_part,
    "yaml": parse_yaml,
}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page} {block.language}")
def test_the_block_is_parsed(block: Block, tmp_path: Path) -> None:
    """By the parser of its language; a language that is not known here is an error."""
    if block.language == "toml":
        parse_toml(block, tmp_path)
    else:
        PARSERS[block.language](block)


def test_every_fence_is_read() -> None:
    """No block of code escapes the tests because of its form."""
    for page in PAGES:
        fences = re.findall(r"^ *(?:```|~~~).*$", read(page), re.MULTILINE)
        assert len(fences) == 2 * len(blocks(page)), page


# --- commands


def command_of(words: list[str]) -> tuple[click.Context, list[str]]:
    """Return the context of the command that *words* begin with, and the words that are left for it.

    The flags of groups before the command are parsed.
    """
    context = click.Context(tailbone, info_name="tailbone", obj=Invocation())
    left = words
    while isinstance(context.command, click.Group) and left:
        group = context.command
        while left and left[0].startswith("-"):  # such as `keys --host NAME list`: flags with a value
            assert any(left[0] in param.opts for param in group.params), left[0]
            left = left[2:]
        command = group.get_command(context, left[0])
        assert command is not None, f"there is no command {' '.join(words)}"
        context = click.Context(command, info_name=left[0], parent=context, obj=context.obj)
        left = left[1:]
    return context, left


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_command_is_parsed(page: str, words: list[str]) -> None:
    """By the parser of the command itself: its flags exist, and have values of the right form."""
    context, left = command_of(words)
    assert not isinstance(context.command, click.Group)
    context.command.parse_args(context, list(left))


def command_lines(program: str) -> list[list[str]]:
    """Return the words of each line of the pages that begins with the program."""
    texts = [block.text for block in BLOCKS if block.language == "sh"]
    rows = [line for text in texts for line in lines(text) if line.startswith(f"{program} ")]
    return [shlex.split(row, comments=True) for row in rows]


@pytest.mark.parametrize("words", [words for words in command_lines("aws") if words[1] != "s3"])
def test_the_command_of_aws_exists(words: list[str]) -> None:
    """The API has the operation, and a parameter for each flag; `aws s3` is not one of an API."""
    _, service, operation, *rest = words
    loaded = botocore.session.get_session().get_service_model(service)
    names = {botocore.xform_name(name, "-"): name for name in loaded.operation_names}
    members = loaded.operation_model(names[operation]).input_shape.members
    flags = {botocore.xform_name(name, "-") for name in members}
    assert {word[2:] for word in rest if word.startswith("--")} <= flags


@pytest.mark.parametrize("words", command_lines("kubectl"))
def test_the_command_of_kubectl_exists(words: list[str]) -> None:
    """Its help has the flags."""
    kubectl = Path(sys.executable).with_name("kubectl")
    if not kubectl.exists():
        pytest.skip("there is no kubectl for this platform")
    [place] = [number for number, word in enumerate([*words, "-"]) if word.startswith("-")][:1]
    plain = [word for word in words[1:place] if word.isalpha() and word != "tailbone"]
    shown = subprocess.run([kubectl, *plain, "--help"], capture_output=True, text=True, check=True).stdout
    shown += subprocess.run([kubectl, "options"], capture_output=True, text=True, check=True).stdout
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert [flag for flag in flags if f"{flag}=" not in shown] == []
    assert f"  kubectl {words[1]} " in shown


def flags_of(command: click.Command) -> set[str]:
    """Return the flags of a command and of all commands below it."""
    found = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below
            found |= flags_of(below)
    return found


def spans(text: str) -> list[str]:
    """Return the pieces of code within sentences and tables."""
    without_blocks = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", without_blocks)


def mentioned() -> list[tuple[str, str]]:
    """Return page and text of each command of tailbone that a sentence or table mentions."""
    found = set()
    for page in PAGES:
        for span in spans(read(page)):
            command = re.search(r'(?:^|/usr/bin/)(tailbone [a-z][^"]*)', " ".join(span.split()))
            found |= {(str(page.relative_to(ROOT)), command[1])} if command else set()
    return sorted(found)


@pytest.mark.parametrize(("page", "text"), mentioned())
def test_the_mentioned_command_exists(page: str, text: str) -> None:
    """A sentence may leave out arguments, but command and flags must exist."""
    for part in text.split(" | "):
        context, left = command_of(part.partition(" -- ")[0].split()[1:])
        known = {flag for param in context.command.params for flag in (*param.opts, *param.secondary_opts)}
        assert {word.partition("=")[0] for word in left if word.startswith("-")} <= known | {"--help"}


OTHERS: set[str] = {
    # tailbone's only in appearance: flags of other programs.
    "--format",
    "--no-dev",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_mentioned_flags_exist(page: Path) -> None:
    """Each flag that stands alone in a sentence is one of tailbone's."""
    alone = {span.split()[0].partition("=")[0] for span in spans(read(page)) if span.startswith("--")}
    assert alone - OTHERS <= flags_of(tailbone)


def test_every_command_is_on_a_page() -> None:
    """The pages mention each command of the program."""
    whole = "\n".join(read(page) for page in PAGES)

    def names(group: click.Group, before: str) -> list[str]:
        context = click.Context(group)
        found = []
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            path = f"{before} {name}"
            found += names(command, path) if isinstance(command, click.Group) else [path]
        return found

    assert [name for name in names(tailbone, "tailbone") if name not in whole] == []


def test_an_unknown_flag_would_be_noticed() -> None:
    """The checks of the other tests work."""
    context, left = command_of(["exec", "--no-such-flag", "x"])
    with pytest.raises(click.UsageError):
        context.command.parse_args(context, left)
    with pytest.raises(AssertionError, match="there is no command"):
        command_of(["keys", "no-such-command"])
    with pytest.raises(KeyError):
        test_the_block_is_parsed(Block("README.md", "cobol", ""), Path())
    with pytest.raises(AssertionError):
        parse_shell(Block("README.md", "sh", "if then"))
    assert CliRunner().invoke(tailbone, ["exec", "--no-such-flag"]).exit_code == 2
    assert tailbone_commands('A=1 tailbone keys list | cat && curl "$(tailbone token --x)"') == [
        ["token", "--x"],
        ["keys", "list"],
    ]
    assert len(COMMANDS) > 50


def test_it_is_installed_from_a_checkout() -> None:
    """The package index may have another package of this name."""
    assert not [page.name for page in PAGES if "pip install tailbone" in page.read_text()]


def test_each_page_is_in_the_menu() -> None:
    """The site's menu has each page once."""
    menu = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    listed = [
        page for entry in menu for page in ([entry] if isinstance(entry, str) else next(iter(entry.values())))
    ]
    assert sorted(listed) == sorted(path.name for path in DOCS.glob("*.md"))
