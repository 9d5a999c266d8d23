"""Make the banks once and keep them as one file."""

import random
from pathlib import Path

import torch
from tiny_clip import concepts as c
from tiny_clip.pictures import Banks

from vpkit.datasets.icons import ICONS


def prepare(data: Path, folder: Path) -> tuple[Banks, list[str], list[str]]:
    """Banks, concept names, and the reading list; read from `folder`/banks.pt if they are there."""
    path = folder / "banks.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(_made(data), path)
    kept = torch.load(path, weights_only=True)
    names, reading = kept["names"], kept["reading"]
    weight = torch.ones(len(names))
    photos = kept["photos"][1].unique()
    weight[[names.index(name) for name in ICONS if name in names]] = 4.0  # symbols the book asks for
    weight[photos] = torch.maximum(weight[photos], torch.tensor(4.0))
    return Banks(kept["drawings"], kept["photos"], kept["words"], weight), names, reading


def _made(data: Path) -> dict:
    names = c.Names()
    for name in ICONS:
        names.id(name)
    drawings = {
        "emoji": c.emoji_bank(names),
        "symbol": c.symbol_bank(names),
        "shape": c.shape_bank(names),
        "clipart": c.clipart_bank(names),
    }
    photos = c.photo_bank(names, data)
    reading = c.reading_list(names)
    for name in reading:
        names.id(name)
    fonts = [p for p in c.text_fonts() if not p.name.startswith(c.HELD_OUT_FONTS)]
    random.Random(0).shuffle(fonts)
    print(f"{len(names.index)} concepts, {len(reading)} of them as words, {len(fonts)} fonts")
    often = reading[: len(ICONS) + 40]
    parts = [c.word_bank(names, often, fonts[:110])]
    rest = reading[len(often) :]
    for start in range(0, len(rest), 60):  # every group in fonts of its own
        chosen = random.Random(start).sample(fonts, 16)
        parts.append(c.word_bank(names, rest[start : start + 60], chosen))
    words = tuple(torch.cat(part) for part in zip(*parts, strict=True))
    print({kind: len(bank.labels) for kind, bank in drawings.items()}, "photos", len(photos[1]), "words", len(words[1]))
    return {
        "names": list(names.index),
        "reading": reading,
        "drawings": {kind: bank.tensors() for kind, bank in drawings.items()},
        "photos": photos,
        "words": words,
    }
