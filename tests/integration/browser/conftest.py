"""The built book in headless Chromium. `make browser` builds it first; without Chromium the tests are skipped."""

import sys
from pathlib import Path

import pytest
from built_pages import HTML

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))
from print_book import find_chromium

_QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=_QUIET.split())
        yield launched
        launched.close()


def _load(browser, name: str, width: int, scheme: str):
    """A page of the book, with what went wrong while it loaded in `.complaints`."""
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    page.complaints = []
    page.on("console", lambda m: page.complaints.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(f"script: {error}"))
    page.on("requestfailed", lambda request: page.complaints.append(f"failed: {request.url[-120:]}"))
    local = ("file:", "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(local) else page.complaints.append(f"asked for {r.url}"))
    page.goto(f"file://{HTML / name}", wait_until="load")
    page.wait_for_timeout(500)  # for scripts that begin after it has loaded
    return page


@pytest.fixture
def open_page(browser):
    """Opens a page for one test, which may press and type."""
    opened = []

    def load(name: str, width: int = 1280):
        opened.append(_load(browser, name, width, "light"))
        return opened[-1]

    yield load
    for page in opened:
        page.context.close()


@pytest.fixture(scope="session")
def seen_page(browser):
    """A page for tests that only look: those of one page stand together, and share it."""
    kept = {}

    def load(name: str, width: int = 1280, scheme: str = "light"):
        for asked in [asked for asked in kept if asked[0] != name]:
            kept.pop(asked).context.close()
        if (name, width, scheme) not in kept:
            kept[name, width, scheme] = _load(browser, name, width, scheme)
        return kept[name, width, scheme]

    yield load
    for page in kept.values():
        page.context.close()


def pytest_collection_modifyitems(items):
    """The tests of one page run one after the other, in one process."""
    for item in items:
        if name := getattr(item, "callspec", None) and item.callspec.params.get("name"):
            item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=lambda item: [mark.args[0] for mark in item.iter_markers("xdist_group")])
