"""The built book in headless Chromium. `make browser` builds it first; without Chromium the tests are skipped."""

import sys
from pathlib import Path

import pytest
from built_pages import HTML

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
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


@pytest.fixture
def open_page(browser):
    """Opens a page of the book; gives the page, with what went wrong while it loaded in `.complaints`."""
    contexts = []

    def load(name: str, width: int = 1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda m: page.complaints.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(f"script: {error}"))
        page.on("requestfailed", lambda request: page.complaints.append(f"failed: {request.url[-120:]}"))
        local = ("file:", "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(local) else page.complaints.append(f"asked for {r.url}"))
        page.goto(f"file://{HTML / name}", wait_until="load")
        return page

    yield load
    for context in contexts:
        context.close()
