"""The site of docs/ is built without a warning, and its pages load nothing from other hosts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

import tailbone.client
import tailbone.testing
import tailbone.verify
from docs.pages import DOCS, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def site() -> Path:
    """The folder of the built site."""
    folder = ROOT / "build" / "site"
    shutil.rmtree(folder, ignore_errors=True)
    # Without any network, where the kernel permits that.
    offline = ["unshare", "--map-root-user", "--net"]
    permitted = shutil.which("unshare") and subprocess.run([*offline, "true"], check=False).returncode == 0
    built = subprocess.run(
        [
            *(offline if permitted else []),
            Path(sys.executable).parent / "zensical",
            *("build", "--strict", "--clean"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "warning" not in (built.stdout + built.stderr).lower()
    return folder


class Elements(HTMLParser):
    """The ids of a page, what it links, and what a browser loads with it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.linked: list[str] = []
        self.loaded: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.linked.append(given["href"])
        if tag == "link" and "href" in given:
            self.loaded.append(given["href"])
        if "src" in given:
            self.loaded.append(given["src"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Elements]:
    """All pages of the site."""
    return {page: Elements(page) for page in site.rglob("*.html")}


def test_each_page_is_built(site: Path) -> None:
    """One for each file of docs/."""
    names = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert names <= {path.parent.name for path in site.rglob("index.html")}


def test_nothing_is_loaded_from_other_hosts(pages: dict[Path, Elements], site: Path) -> None:
    """Scripts, styles, fonts and images are the site's."""
    assert len(pages) > 20
    for page, elements in pages.items():
        assert [url for url in elements.loaded if urlsplit(url).netloc] == [], page
    for style in site.rglob("*.css"):
        assert "@import" not in style.read_text()
        assert "url(http" not in style.read_text().replace('"', "").replace("'", "")


def test_the_links_of_the_site_lead_somewhere(pages: dict[Path, Elements], site: Path) -> None:
    """Each relative link has its file, and its heading if it names one."""
    faults = []
    for page, elements in pages.items():
        if page.name == "404.html":
            continue
        for link in elements.linked:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            there = target.exists() and (not parts.fragment or unquote(parts.fragment) in pages[target].ids)
            faults += [] if there else [(str(page.relative_to(site)), link)]
    assert faults == []


def test_the_markup_of_each_page_is_understood(site: Path) -> None:
    """No markup is shown as text, and a numbered list goes on after a block of code within it."""
    for page in site.rglob("index.html"):
        found = re.search(r"<article.*?</article>", page.read_text(), re.DOTALL)
        assert found
        shown = re.sub(r"<(pre|code|script)\b.*?</\1>|<[^>]*>", "", found[0], flags=re.DOTALL)
        assert [mark for mark in ("](", "```", "--8<--", ":::", "|---", "**") if mark in shown] == [], page
        source = DOCS / f"{page.parent.name}.md"
        steps = re.findall(r"^\d+\. ", source.read_text(), re.MULTILINE) if source.exists() else []
        assert found[0].count("<ol>") == steps.count("1. "), page


def test_the_security_model_is_included(site: Path) -> None:
    """The page has the text of SECURITY.md, which exists once."""
    assert "Threat model" in (site / "security" / "index.html").read_text()


@pytest.mark.parametrize(
    "module", [tailbone.verify, tailbone.client, tailbone.testing], ids=lambda module: module.__name__
)
def test_the_api_has_every_public_name(pages: dict[Path, Elements], site: Path, module: ModuleType) -> None:
    """Each name of ``__all__`` has its heading, made from its docstring."""
    ids = pages[site / "api" / "index.html"].ids
    names = {name: f"{module.__name__}.{name}" for name in module.__all__}
    if "require" in names:  # the function has the name of its module
        names["require"] += ".require"
    assert [name for name, heading in names.items() if heading not in ids] == []


class Quiet(SimpleHTTPRequestHandler):
    """A web server that logs nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's
        pass


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    """The site's address on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.integration
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: .ci/run installs Debian's package")
def test_a_browser_asks_no_other_host(served: str, pages: dict[Path, Elements], site: Path) -> None:
    """Chromium shows each page, with every script run, by requests to the site alone."""
    from playwright.sync_api import sync_playwright

    asked: set[str] = set()
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0)
        page = browser.new_page(viewport={"width": 360, "height": 800})
        page.on("request", lambda request: asked.add(request.url))
        page.on("pageerror", lambda error: said.append(str(error)))
        for path in sorted(pages):
            page.goto(f"{served}/{path.relative_to(site)}", wait_until="load")
            root = "document.documentElement"
            assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") <= 0, path
        browser.close()
    assert {f"{urlsplit(url).scheme}://{urlsplit(url).netloc}" for url in asked} == {served}
    assert said == []
