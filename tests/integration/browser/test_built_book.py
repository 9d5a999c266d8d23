import re
import subprocess
import sys
from pathlib import Path

import pytest
from built_pages import HTML, pages

ROOT = Path(__file__).resolve().parents[3]
PAGES = pages()
SERIOUS = ("serious", "critical")
CHAPTERS = [name for name in PAGES if name.startswith("notebooks/")]


def test_the_book_is_built():
    assert len(CHAPTERS) >= 7, f"no book under {HTML}: run make pages"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_without_errors_and_from_this_machine_only(seen_page, name):
    page = seen_page(name)
    assert page.complaints == []
    assert page.title()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window(seen_page, name, width):
    page = seen_page(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width + 1
    inside = page.evaluate("""() => [...document.querySelectorAll('main img')]
        .filter(i => !i.closest('.cell_output, table, .output')).map(i => i.getBoundingClientRect().right)""")
    assert all(right <= width + 1 for right in inside)


@pytest.mark.parametrize("name", CHAPTERS)
def test_code_neither_wraps_nor_is_cut_off(seen_page, name):
    """At 1280 px it fits; on a telephone it is scrolled."""
    measured = """() => [...document.querySelectorAll('div.cell_input pre')].map(pre => ({
        wide: pre.scrollWidth - pre.clientWidth, wraps: getComputedStyle(pre).whiteSpace,
        scrolls: getComputedStyle(pre).overflowX}))"""
    wide = seen_page(name, 1280).evaluate(measured)
    assert len(wide) > 8
    assert [cell for cell in wide if cell["wide"] > 0 or cell["wraps"] != "pre"] == []
    narrow = seen_page(name, 390).evaluate(measured)
    assert any(cell["wide"] > 0 for cell in narrow)
    assert {(cell["wraps"], cell["scrolls"]) for cell in narrow} <= {("pre", "auto"), ("pre", "scroll")}


def test_equations_are_set(open_page):
    page = open_page("notebooks/03_ilm_vp.html")
    page.wait_for_selector("mjx-container", timeout=15_000)
    assert page.locator("mjx-container").count() > 5
    assert page.locator("mjx-merror").count() == 0


@pytest.mark.parametrize("name", PAGES)
def test_images_say_what_they_show(seen_page, name):
    page = seen_page(name)
    alts = page.evaluate("[...document.querySelectorAll('article img')].map(i => [i.src.slice(-60), i.alt])")
    assert [src for src, alt in alts if not alt.strip()] == []
    assert all(width > 0 for width in page.evaluate("[...document.querySelectorAll('img')].map(i => i.naturalWidth)"))


def test_search_finds_label_mapping(open_page):
    page = open_page("search.html?q=label+mapping")
    page.wait_for_selector("#search-results li a", timeout=15_000)
    found = page.locator("#search-results li a").all_inner_texts()
    assert any("mapping" in text.lower() for text in found)


@pytest.mark.parametrize("name", PAGES)
def test_links_within_the_book_lead_somewhere(seen_page, name):
    page = seen_page(name)
    links = page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)")
    broken = []
    for link in {link for link in links if link.startswith("file://")}:
        path, _, anchor = link.removeprefix("file://").partition("#")
        path = path.partition("?")[0]
        target = HTML / path if not path.startswith("/") else type(HTML)(path)
        if not target.exists() or (anchor and target.suffix == ".html" and not _has(target, anchor)):
            broken.append(link[-100:])
    assert broken == []


def _has(path, anchor) -> bool:
    return re.search(rf'(id|name)="{re.escape(anchor)}"', path.read_text(encoding="utf-8")) is not None


def test_the_keyboard_reaches_the_contents(open_page):
    page = open_page("intro.html")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.tagName"))
    assert any("01_visual_prompting" in str(where) for where in reached)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_control_shows_another_picture_without_a_kernel(open_page, name):
    page = open_page(name)
    groups = page.locator(".vpkit-frames").all()
    assert groups
    for group in groups:
        control, said = group.locator("input, select"), group.locator("output")
        frames = group.locator(".vpkit-frame:visible")
        assert control.count() == 1
        assert frames.count() == 1
        before = frames.first.inner_html(), said.inner_text()
        control.focus()
        # a slider that stands at its end goes back
        key = "ArrowLeft" if control.get_attribute("max") == control.input_value() else "ArrowRight"
        page.keyboard.press("ArrowDown" if control.evaluate("c => c.tagName") == "SELECT" else key)
        assert frames.count() == 1
        assert frames.first.inner_html() != before[0]
        assert said.inner_text() != before[1]


# Contrast takes axe four fifths of its time. Texts that look the same, on ancestors that look the same, are one case.
MARK_LOOKS = """() => {
    const grounds = new Map([[null, '']]), seen = new Set();
    const ground = e => {
        if (!grounds.has(e)) {
            const s = getComputedStyle(e);
            const own = [s.backgroundColor, s.backgroundImage, s.opacity, s.visibility].join();
            grounds.set(e, ground(e.parentElement) + '|' + own);
        }
        return grounds.get(e);
    };
    for (const e of document.body.querySelectorAll('*')) {
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
        const s = getComputedStyle(e), box = e.getBoundingClientRect();
        const shown = box.width * box.height > 0 && box.right > 0;  // not in a closed menu
        const look = [shown, s.color, s.fontSize, s.fontWeight, s.textShadow, ground(e)].join();
        if (!seen.has(look)) { seen.add(look); e.setAttribute('data-look', ''); }
    }
}"""


def violations(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    page.evaluate(MARK_LOOKS)
    rest = {"resultTypes": ["violations"], "rules": {"color-contrast": {"enabled": False}}}
    contrast = {"resultTypes": ["violations"], "runOnly": {"type": "rule", "values": ["color-contrast"]}}
    found = axe.run(page, options=rest).response["violations"]
    found += axe.run(page, context={"include": [["[data-look]"]]}, options=contrast).response["violations"]
    return [(v["id"], len(v["nodes"]), v["nodes"][0]["html"][:160]) for v in found if v["impact"] in SERIOUS]


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "light"), (1280, "dark")])
@pytest.mark.parametrize("name", ["intro.html", "methods.html", "solutions.html", "api.html", *CHAPTERS])
def test_axe_finds_nothing_serious(seen_page, name, width, scheme):
    assert violations(seen_page(name, width, scheme)) == []


def test_axe_finds_one_pale_word_among_thousands(open_page):
    page = open_page("notebooks/08_reproduction.html")
    page.evaluate("[...document.querySelectorAll('article p')].at(-1).innerHTML += ' <b style=color:#bbb>pale</b>'")
    ((rule, count, html),) = violations(page)
    assert (rule, count) == ("color-contrast", 1)
    assert "pale" in html


def test_the_book_is_printed_to_one_file(browser, tmp_path):
    """`browser` skips this where there is none."""
    out = tmp_path / "book.pdf"
    command = [sys.executable, ROOT / "tools" / "print_book.py", "--out", out]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    printed = out.read_bytes()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 60
