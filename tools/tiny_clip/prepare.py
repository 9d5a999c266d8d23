"""Make the banks once and keep them as one file."""

import random
import re
from pathlib import Path

import torch
from tiny_clip import concepts as c
from tiny_clip.held_out import HELD_OUT, is_refused
from tiny_clip.icon_sets import icon_banks, wordnet_nouns
from tiny_clip.pictures import Banks
from tiny_clip.space import Space, name_vectors, sentence_vectors, spelling

from vpkit.datasets.icons import ICONS
from vpkit.datasets.pictograms import pictogram_table

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HELD_OUT_WORDS = 64  # names never shown as words, for the test of reading
WORDS_FILE = Path(__file__).parent / "held_out_words.txt"  # the first 64; then names for the test to choose among
MORE_WORDS = 16_000  # nouns that are shown as words only


def prepare(data: Path, icons: Path, folder: Path) -> tuple[Banks, dict]:
    """Banks, and the words: names, words, held-out words, content (C, 176), spellings (W, 64); kept in `folder`."""
    pictures, words = folder / "banks.pt", folder / "words.pt"
    if not pictures.exists():
        folder.mkdir(parents=True, exist_ok=True)
        banks, listed = _made(data, icons)
        torch.save(_embedded(listed), words)
        torch.save(banks, pictures)
    kept, listed = torch.load(pictures, weights_only=True, mmap=True), torch.load(words, weights_only=True)
    names = {name: i for i, name in enumerate(listed["names"])}
    # What many designers draw is worth more than what one has called by some odd name.
    drawn = sum(torch.bincount(labels, minlength=len(names)) for _, labels in kept["drawings"].values())
    weight = drawn.clamp(1, 25).sqrt()
    weight[[names[name] for name in CIFAR]] = 25.0
    asked = [names[name] for name in (*ICONS, *pictogram_table()) if name not in HELD_OUT]
    weight[asked] *= 8.0  # what the book asks for
    return Banks(kept["drawings"], kept["photos"], kept["words"], weight), listed


def _made(data: Path, icons: Path) -> tuple[dict, dict]:
    names = c.Names()
    for name in (*ICONS, *(name for name in pictogram_table() if name not in HELD_OUT), *CIFAR):
        names.id(name)
    drawings = icon_banks(names, icons)
    drawings |= {"symbol": c.symbol_bank(names), "shape": c.shape_bank(names), "clipart": c.clipart_bank(names)}
    photos = {"photo": c.cifar_bank(names, data), "scene": c.imagenet_bank(names, data)}
    concepts = list(names.index)
    own = (*ICONS, *pictogram_table(), *CIFAR)
    shown_after_all = {n for n in concepts if n in HELD_OUT or (n not in own and is_refused(n))}
    if shown_after_all:
        raise ValueError(f"pictures of {sorted(shown_after_all)}: expected none of what is held out")
    shown = [name for name in concepts if re.fullmatch(r"[A-Za-z-]{3,12}( [A-Za-z-]{2,12}){0,2}", name)]
    nouns = sorted(n for n in wordnet_nouns() if re.fullmatch(r"[a-z]{3,11}", n) and n not in names.index)
    shuffled = random.Random(0)
    kept_out = WORDS_FILE.read_text().split("\n")[:HELD_OUT_WORDS]
    shown = [name for name in shown if name not in kept_out]
    more = [n for n in shuffled.sample(nouns, MORE_WORDS) if n not in kept_out]
    words = c.Names()
    for word in (*concepts, *more):
        words.id(word)
    fonts = [p for p in c.text_fonts() if not p.name.startswith(c.HELD_OUT_FONTS)]
    shuffled.shuffle(fonts)
    print(f"{len(concepts)} concepts, {len(shown) + len(more)} words, {len(fonts)} fonts", flush=True)
    often = [name for name in (*ICONS, *pictogram_table(), *CIFAR) if name in shown]
    parts = [c.word_bank(words, list(dict.fromkeys(often)), fonts[:60])]
    rest = [name for name in (*shown, *more) if name not in often]
    for start in range(0, len(rest), 60):  # every group in fonts of its own
        parts.append(c.word_bank(words, rest[start : start + 60], shuffled.sample(fonts, 6)))
    masks = tuple(torch.cat(part) for part in zip(*parts, strict=True))
    sizes = {kind: len(labels) for kind, (_, labels) in (drawings | photos).items()}
    print(sizes, "words", len(masks[1]), flush=True)
    listed = {"names": concepts, "words": list(words.index), "kept_out": kept_out, "nouns": nouns}
    return {"drawings": drawings, "photos": photos, "words": masks}, listed


def _embedded(listed: dict) -> dict:
    """The lists with their places in the space."""
    names = listed["names"]
    nouns = random.Random(1).sample(listed["nouns"], 20_000)
    space = Space.of_nouns(sentence_vectors([*names, *nouns]))
    embedded = name_vectors(names)
    unit = torch.nn.functional.normalize(embedded)
    return listed | {
        "mean": space.mean,
        "basis": space.basis,
        "content": space.content(embedded),
        "spelling": spelling(listed["words"]),
        "near": (unit @ unit.T > 0.8).bool(),  # two names for much the same: not each other's negatives
    }
