"""Generate what the verifiers' pages let readers paste; ``python -m tests.docs.verifiers`` writes it."""

from __future__ import annotations

from pathlib import Path

from tailbone.doctor.targets import TARGETS, Snippet, SnippetValues, placeholders_in, snippets_for

from .pages import replaced

DOCS = Path(__file__).parents[2] / "docs"
BEGIN = "<!-- made by tests/docs/verifiers.py from tailbone/doctor/targets.py -->\n"
END = "<!-- /made -->"


def texts(name: str) -> str:
    """Return the texts that `tailbone doctor --for NAME` prints when it knows nothing."""
    snippets = snippets_for(TARGETS[name], SnippetValues())
    rows = [f"| `{word}` | {meaning} |" for word, meaning in placeholders_in(snippets).items()]
    table = "\n".join(["| replace | by |", "|---|---|", *rows])
    return "\n".join([*map(_block, snippets), table, ""])


def _block(snippet: Snippet) -> str:
    title = snippet.title[0].upper() + snippet.title[1:]
    return f"{title}:\n\n```{snippet.language}\n{snippet.text}```\n"


def refresh(name: str, page: str) -> str:
    """Return a verifier's page with the current texts."""
    return replaced(page, BEGIN, END, texts(name))


if __name__ == "__main__":
    for target in TARGETS:
        file = DOCS / f"{target}.md"
        file.write_text(refresh(target, file.read_text()))
