"""`pictograms`: things as many designers draw them, from the icon families in the package QtAwesome.

Whoever learns from two families is tested on two others: the same 122 things, drawn by other people.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from vpkit.datasets.icons import STYLES, draw_glyph
from vpkit.datasets.source import Source

# The fonts of a family of designs, as QtAwesome calls their files, without the versions. The second is that of an icon
# "regular/NAME".
FAMILIES = {
    "mdi": ("materialdesignicons6-webfont",),
    "fontawesome": ("fontawesome6-solid-webfont", "fontawesome6-regular-webfont"),
    "elusive": ("elusiveicons-webfont",),
    "phosphor": ("phosphor",),
    "remix": ("remixicon",),
}
TEST_FAMILIES = ("phosphor", "remix")  # all others are trained and validated on
IMAGES_PER_CLASS = {"train": 48, "val": 12, "test": 24}

_TABLE = Path(__file__).parents[1] / "data" / "pictograms.json"  # class name: {family: [icon names]}, chosen by eye


@cache
def pictogram_table() -> dict[str, dict[str, list[str]]]:
    """The designs of each class: {class name: {family: [icon names]}}.

    Every class has at least three designs in two training families, and one in each of the test families. Two designs
    of a class, cut out and scaled to 64 x 64 px, share less than 90 % of their ink, if only one of them is trained on.
    No word stands in a name of the first half of the classes and in one of the second.
    """
    return json.loads(_TABLE.read_text(encoding="utf-8"))


def load_pictograms(split: str, seed: int, domain: str = "plain") -> Source:
    """A split, ordered by class; the designs of a class take turns.

    "train" and "val" draw designs of `mdi`, `fontawesome` and `elusive`, "test" those of `phosphor` and `remix`.
    Colours, sizes, places and turns are those of `icons`.

    Args:
        split: "train", "val" or "test".
        seed: of all that is drawn.
        domain: a style of `icons`, or a family that has every class: its designs alone, whatever the split. Then test
            images of a training family are new drawings of known designs.

    Raises:
        ValueError: an unknown domain, an icon that the installed QtAwesome does not have.
        ModuleNotFoundError: no QtAwesome.
    """
    table = pictogram_table()
    complete = [family for family in FAMILIES if all(family in designs for designs in table.values())]
    if domain not in (*STYLES, *complete):
        raise ValueError(
            f"unknown domain {domain!r} of pictograms: expected pictograms:NAME with one of "
            f"{', '.join((*STYLES[1:], *complete))}"
        )
    chosen = families_of(split) if domain in STYLES else [domain]
    style, per_class = domain if domain in STYLES else "plain", IMAGES_PER_CLASS[split]
    designs = _designs(chosen)
    labels = np.repeat(np.arange(len(table)), per_class)
    kinds = np.concatenate([np.arange(per_class) % len(of_class) for of_class in designs])

    def decode(i: int, size: int) -> np.ndarray:
        label, image = divmod(int(i), per_class)
        rng = np.random.default_rng([seed, list(IMAGES_PER_CLASS).index(split), label, image])
        return draw_glyph(size, rng, *designs[label][image % len(designs[label])], style)

    digest = hashlib.sha256(_TABLE.read_bytes()).hexdigest()[:12]
    fingerprint = f"{split} {seed} {domain} {digest} {metadata.version('QtAwesome')}"
    rule = f"by designer: {', '.join(chosen)}"
    return Source(labels, tuple(table), decode, fingerprint=fingerprint, rule=rule, kinds=kinds)


def families_of(split: str) -> list[str]:
    """The families that a split draws: those of the test split are met in no other."""
    return [family for family in FAMILIES if (family in TEST_FAMILIES) == (split == "test")]


def designs_of(split: str) -> list[list[tuple[Path, str]]]:
    """For each class the designs of a split, each a font and a character."""
    return _designs(families_of(split))


def _designs(families: list[str]) -> list[list[tuple[Path, str]]]:
    return [
        [glyph(family, icon) for family in families for icon in by_family.get(family, ())]
        for by_family in pictogram_table().values()
    ]


def glyph(family: str, icon: str) -> tuple[Path, str]:
    """The font and the character of an icon."""
    weight, _, name = icon.rpartition("/")
    font, characters = _font(FAMILIES[family][weight == "regular"])
    if name in characters:
        return font, chr(int(characters[name], 16))
    raise ValueError(
        f"QtAwesome {metadata.version('QtAwesome')} has no icon {icon!r} in {family}, which pictograms draws: "
        "pip install 'QtAwesome>=1.4,<1.5'"
    )


@cache
def _font(stem: str) -> tuple[Path, dict[str, str]]:
    """A font file of QtAwesome, and its characters by name, in hexadecimal."""
    found = find_spec("qtawesome")  # not imported: that needs Qt, its files do not
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("pictograms are drawn from fonts in the package QtAwesome: pip install QtAwesome")
    folder = Path(found.submodule_search_locations[0]) / "fonts"
    return _newest(folder, f"{stem}-[0-9]*.ttf"), json.loads(
        _newest(folder, f"{stem}-charmap-*.json").read_text("utf-8")
    )


def _newest(folder: Path, pattern: str) -> Path:
    found: Sequence[Path] = sorted(folder.glob(pattern))
    if not found:
        raise ValueError(
            f"QtAwesome has no {pattern} in {folder}, which pictograms needs: pip install 'QtAwesome>=1.4,<1.5'"
        )
    return found[-1]
