"""The pages: README, the pages of docs/ and the other documents, with their blocks of code and commands."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
README: Final = ROOT / "README.md"
PAGES: Final = (README, *sorted(DOCS.glob("*.md")), ROOT / "release" / "verify" / "README.md")
"""What users read."""
DOCUMENTS: Final = (
    *PAGES,
    *(ROOT / f"{name}.md" for name in ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
    ROOT / "tests" / "README.md",
)
"""All that is written for people."""

_FENCED = re.compile(r"^( *)```([\w-]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_SNIPPET = re.compile(r'^--8<-- "([\w./-]+?)(?::(\w+))?"$', re.MULTILINE)
_SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


class Block(NamedTuple):
    """A fenced block of code.

    Attributes:
        page: its page's name.
        language: the word after the fence; empty for plain text.
        text: without the fences and their indentation.
    """

    page: str
    language: str
    text: str


def included(text: str) -> str:
    """Return *text* with the parts of other files that the site includes."""

    def part(found: re.Match[str]) -> str:
        whole = (ROOT / found[1]).read_text()
        if not found[2]:
            return whole.rstrip("\n")
        marked = rf"<!-- --8<-- \[start:{found[2]}\] -->\n(.*?)\n<!-- --8<-- \[end:{found[2]}\] -->"
        section = re.search(marked, whole, re.DOTALL)
        assert section, f"{found[1]} has no section {found[2]}"
        return section[1]

    return _SNIPPET.sub(part, text)


def read(path: Path) -> str:
    """Return a page as the site shows it."""
    return included(path.read_text())


def replaced(text: str, begin: str, end: str, part: str) -> str:
    """Return a page's *text* with another part between two comments."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{part}{end}{after}"


def blocks(path: Path, section: str = "") -> list[Block]:
    """Return the blocks of code of a page, or of the section with that heading."""
    name = str(path.relative_to(ROOT))
    text = read(path)
    if section:
        [text] = [part for part in text.split("\n## ") if part.startswith(f"{section}\n")]
    return [Block(name, language, textwrap.dedent(code)) for _, language, code in _FENCED.findall(text)]


def lines(text: str) -> list[str]:
    """Return the command lines of a block for a shell, without comments and the content of here-documents."""
    joined = re.sub(
        r"(<<-?'?(\w+)'?[^\n]*\n).*?^\2$", r"\1", text.replace("\\\n", " "), flags=re.DOTALL | re.M
    )
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def tailbone_commands(text: str) -> list[list[str]]:
    """Return the words after ``tailbone`` of each such command of a shell's text."""
    found = []
    for line in lines(text):
        found += [words for inner in _SUBSTITUTION.findall(line) for words in tailbone_commands(inner)]
        lexer = shlex.shlex(_SUBSTITUTION.sub("SUBSTITUTED", line), posix=True, punctuation_chars="|&;()")
        lexer.whitespace_split = True
        command: list[str] = []
        for word in (*lexer, ";"):
            if word and set(word) <= set("|&;()"):
                words = _after_tailbone(command)
                found += [words] if words is not None else []
                command = []
            else:
                command.append(word)
    return found


def _after_tailbone(command: list[str]) -> list[str] | None:
    while command and (command[0] in ("uv", "run", "--no-dev") or _ASSIGNMENT.match(command[0])):
        command = command[1:]
    return command[1:] if command and command[0].rpartition("/")[2] == "tailbone" else None
