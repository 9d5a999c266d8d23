"""The book as one PDF for teachers: every page but the list of functions, printed by headless Chromium (make pdf).

python tools/print_book.py                from the committed outputs to _build/vpkit.pdf
python tools/print_book.py --out BOOK.pdf
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRINTED = {"top": "16mm", "bottom": "16mm", "left": "14mm", "right": "14mm"}
STYLE = """
.bd-main .bd-content .bd-article-container { max-width: none; padding: 0; }
h1, h2, h3, .cell_input { break-after: avoid; }
img, .cell_output table:not(.dataframe) { break-inside: avoid; }
.cell_output table { font-size: 0.72em; }
.cell_output, .vpkit-frame { overflow: visible !important; }
.vpkit-frames label, .vpkit-frames output { display: none; }
"""
NUMBER = '<div style="font-size:8px;width:100%;text-align:center"><span class="pageNumber"></span></div>'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "vpkit.pdf")
    out = parser.parse_args().out
    chromium = find_chromium()
    if chromium is None:
        print("no Chromium on this machine, which prints the book: apt-get install chromium", file=sys.stderr)
        return 1
    program = Path(sys.executable).with_name("jupyter-book")
    built = ROOT / "_build" / "one_page"
    command = [program, "build", ROOT / "book", "--all", "-q", "-W", "--keep-going", "--path-output", built]
    subprocess.run([*map(str, command), "--builder", "custom", "--custom-builder", "singlehtml"], check=True)
    (page,) = built.rglob("singlehtml/intro.html")
    print_page(chromium, page, out)
    print(out)
    return 0


def find_chromium() -> str | None:
    """The program, under the first of the names it goes by; the browser tests use the same."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def print_page(chromium: str, page: Path, out: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(color_scheme="light")
        opened.goto(f"file://{page}", wait_until="load")
        opened.wait_for_function("document.querySelectorAll('mjx-container').length > 50", timeout=120_000)
        opened.add_style_tag(content=STYLE)
        opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        opened.evaluate("document.getElementById('every-function-and-class').remove()")
        out.parent.mkdir(parents=True, exist_ok=True)
        opened.pdf(
            path=out, format="A4", scale=0.72, margin=PRINTED, outline=True, tagged=True,
            display_header_footer=True, header_template="<span></span>", footer_template=NUMBER,
        )  # fmt: skip
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
