"""The page for people in Chromium, through the ports of a ``tailbone dev``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness.devs import Dev
from harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.programs import Program
    from playwright.sync_api import Browser, ConsoleMessage, Page

CHROMIUM = shutil.which("chromium")
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: .ci/run installs Debian's package"),
]


@pytest.fixture(scope="module")
def dev(shared_start: Callable[..., Program]) -> Dev:
    """A dev with a person and a tagged node."""
    started = Dev(
        shared_start(
            "dev", "-o", "json", "--listen", "127.0.0.1:0", "--audience", "vault", "--audience", "sts.example"
        )
    )
    until(lambda: started.caller().get("/_readyz").status == 200, "ready")
    return started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM,
            # Chromium's sandbox does not start as root.
            chromium_sandbox=os.geteuid() != 0,
        )
        yield started
        started.close()


@pytest.fixture
def visit(browser: Browser, dev: Dev) -> Iterator[Callable[..., Page]]:
    """Open the page as a caller; at the end of the test, the console must be empty."""
    said: list[str] = []
    contexts = []

    def heard(message: ConsoleMessage) -> None:
        # Chromium asks for an icon of a JWKS that it shows, but not of the page, whose policy forbids it.
        if not message.location["url"].endswith("/favicon.ico"):
            said.append(message.text)

    def call(identity: str = "dev@example.com", *, scheme: Any = "light", width: int = 1280) -> Page:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
        contexts.append(context)
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: said.append(str(error)))
        answer = page.goto(f"http://{dev.caller(identity).address}/")
        assert answer is not None
        assert answer.status == 200
        return page

    yield call
    for context in contexts:
        context.close()
    assert said == []


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("identity", ["dev@example.com", "tag:ci"])
def test_the_page_is_readable(visit: Callable[..., Page], identity: str, scheme: str, width: int) -> None:
    """Nothing is cut off at the side, axe-core finds nothing, the console is empty; a screenshot is kept."""
    from axe_playwright_python.sync_playwright import Axe

    page = visit(identity, scheme=scheme, width=width)
    page.locator("summary").first.click()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    name = f"page-{identity.partition('@')[0].replace(':', '-')}-{scheme}-{width}.png"
    page.screenshot(path=SCREENSHOTS / name, full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = Axe().run(page)
    assert found.response["violations"] == [], found.generate_report()
    assert len(found.response["passes"]) > 10


def test_the_style_is_applied(visit: Callable[..., Page]) -> None:
    """The policy's hash is that of the style: dark and light differ."""
    grounds = [
        visit(scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert grounds == ["rgb(245, 246, 248)", "rgb(18, 22, 28)"]


def test_the_links_open(visit: Callable[..., Page]) -> None:
    """JWKS and discovery document, by a click."""
    page = visit()
    links = page.locator("main a")
    assert links.count() == 2
    for number in range(links.count()):
        with page.expect_navigation() as navigation:
            links.nth(number).click()
        answer = navigation.value
        assert answer is not None
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        page.go_back()


def test_another_site_can_link_but_not_embed(browser: Browser, dev: Dev) -> None:
    """A link opens the page; a frame, an image and a script of another site get nothing."""
    url = f"http://{dev.caller().address}/"
    context = browser.new_context()
    page = context.new_page()
    page.route(
        "http://other.example/",
        lambda route: route.fulfill(
            content_type="text/html",
            body=f'<a href="{url}">page</a><iframe src="{url}"></iframe><img src="{url}">'
            f'<script src="{url}"></script>',
        ),
    )
    statuses: list[tuple[str, int]] = []
    page.on(
        "response",
        lambda answer: (
            statuses.append((answer.request.resource_type, answer.status)) if answer.url == url else None
        ),
    )
    page.goto("http://other.example/", wait_until="load")
    assert page.evaluate(f"fetch('{url}').then(() => 'read', () => 'blocked')") == "blocked"
    assert [status for _, status in statuses if status == 200] == []
    statuses.clear()
    page.click("a")
    page.wait_for_url(url)
    assert page.locator("h1").inner_text() == "You are dev@example.com"
    assert statuses == [("document", 200)]
    context.close()
