"""A folder of photos that can be told apart by their colour."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def coloured_photos(root: Path, names: Sequence[str] = ("sky", "tree", "wall"), each: int = 12) -> Path:
    """`root/<name>/<i>.png`, 40 px: noise that is bluer, greener or redder, by class."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(names):
        (root / name).mkdir()
        for i in range(each):
            pixels = rng.integers(0, 90, (40, 40, 3))
            pixels[..., 2 - k] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root
