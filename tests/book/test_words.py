"""One word a thing in the text: the words of the notation page, British spelling, and none of their other names.

codespell (`make lint`) finds words that are misspelt; these are spelt well, and confuse.
"""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTEAD = {  # of what stands on the left, the book says what stands on the right
    r"datasets?": "data set",
    r"percent": "per cent",
    r"(?:image|text|vision) encoder": "image tower, text tower",
    r"source labels?": "source class",
    r"validation set": "validation split",
    r"pre-?trained": "trained, frozen",
    r"remap(?:s|ped|ping)?": "map again",
    r"fine ?tun(?:e|ed|ing)": "fine-tuning",
    r"(?:zero|few) shot": "zero-shot, few-shot",
    r"telephones?": "phone",
    r"colors?|gray|centers?|behaviors?|labeled|modeling": "British spelling",
    r"(?:normal|optim|recogn|summari|initial|visual)i?z(?:e|es|ed|ing|ation)": "British spelling: -ise",
    r"utili[sz]e[sd]?|leverag(?:e|es|ed|ing)|in order to|state[- ]of[- ]the[- ]art": "a plain word",
    r"simply|obviously|of course|needless to say": "nothing",
}
NOT_PROSE = re.compile(
    r"<!--.*?-->|```.*?```|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\]\([^)]*\)|<code>.*?</code>|Noto Color Emoji", re.DOTALL
)
PAGES = [
    *sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")),
    *(path for path in sorted((ROOT / "book").glob("*.md")) if path.stem != "api"),  # names of modules
    ROOT / "README.md",
]


def found(text: str) -> list[str]:
    """What should be said otherwise, each with the line it stands in."""
    prose = NOT_PROSE.sub(" ", text)
    return [
        f"{match[0]!r}, better {better}: {line.strip()[:100]}"
        for line in prose.splitlines()
        for word, better in INSTEAD.items()
        for match in re.finditer(rf"\b(?:{word})\b", line, re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_keeps_to_the_words_of_the_book(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        captions = [c.metadata.get("mystnb", {}).get("figure", {}).get("caption", "") for c in cells]
        text = "\n".join([*(c.source for c in cells if c.cell_type == "markdown"), *captions])
    assert found(text) == []


def test_other_words_are_found_in_prose_and_not_in_code():
    assert found("Fine-tuning on a data set, `dataset`, $dataset$ and\n```\ndataset\n```") == []
    words = [line.partition(",")[0] for line in found("Two datasets.\nThe Image encoder, in order to win.")]
    assert words == ["'datasets'", "'Image encoder'", "'in order to'"]
