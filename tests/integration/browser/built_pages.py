"""Where `make pages` puts the book, and what is in it."""

from pathlib import Path

HTML = Path(__file__).resolve().parents[3] / "_build" / "pages" / "_build" / "html"


def pages() -> list[str]:
    found = sorted(p.relative_to(HTML).as_posix() for p in HTML.rglob("*.html") if "_static" not in p.parts)
    return [name for name in found if name not in ("genindex.html", "search.html", "index.html")]
