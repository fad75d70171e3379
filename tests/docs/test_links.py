"""Every link in the documents leads somewhere: to a file and a heading that exist, or to an https URL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from docs.pages import DOCS, DOCUMENTS, ROOT, read

if TYPE_CHECKING:
    from pathlib import Path

# Not within code, where brackets and parentheses mean something else.
_CODE = re.compile(r"^( *)```.*?^\1```$|`[^`]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(\s*([^)\s]*)[^)]*\)|<(https?:[^>]*)>|^\[[^\]]+\]: +(\S+)", re.MULTILINE)


def links(path: Path) -> list[str]:
    """Return the targets of all links of a document, in any form, and of the parts that it includes."""
    return [next(filter(None, found), "") for found in _LINK.findall(_CODE.sub("CODE", read(path)))]


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as the site and GitHub make them."""
    without_blocks = re.sub(r"^( *)```.*?^\1```$", "", read(path), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#{1,6} +(.+)$", without_blocks, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def fault(document: Path, target: str) -> str:
    """Return what is wrong with a link; empty if nothing is."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        good = parts.scheme == "https" and parts.hostname and "." in parts.hostname
        return "" if good else "not an https URL"
    file = (document.parent / parts.path).resolve() if parts.path else document
    if not file.exists():
        return "there is no such file"
    if DOCS in document.parents and file.parent != DOCS:
        return "it leaves the site"
    if parts.fragment and parts.fragment not in anchors(file):
        return "there is no such heading"
    return ""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_its_links_lead_somewhere(document: Path) -> None:
    """Files and headings exist, pages of the site link only each other, and the rest is https."""
    assert {target: found for target in links(document) if (found := fault(document, target))} == {}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("keys.md#roles", ""),
        ("keys.md#rules", "there is no such heading"),
        ("no.md", "there is no such file"),
        ("../SECURITY.md", "it leaves the site"),
        ("#no", "there is no such heading"),
        ("https://example.com/a", ""),
        ("http://example.com/", "not an https URL"),
        ("https:///a", "not an https URL"),
    ],
)
def test_a_wrong_link_would_be_noticed(target: str, expected: str) -> None:
    """The check of the other test works."""
    assert fault(DOCS / "index.md", target) == expected


def test_every_form_of_a_link_is_found(tmp_path: Path) -> None:
    """Inline, by reference and in angle brackets, but not within code."""
    page = tmp_path / "page.md"
    page.write_text(
        "[a](one.md) `[b](no)` ![c](two.png) <https://three.example>\n\n```\n[d](no)\n```\n[e]: four.md\n"
    )
    assert links(page) == ["one.md", "two.png", "https://three.example", "four.md"]
    assert sum(len(links(document)) for document in DOCUMENTS) > 80
