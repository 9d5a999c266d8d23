"""Images that hold two things, one of a class that is asked for and one that distracts, and where they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vpkit.datasets.icons import DEJAVU, ICON_NAMES, ICONS, IMAGES_PER_CLASS, distinct_colours, placed_mask
from vpkit.datasets.image_set import ImageSet
from vpkit.datasets.pictograms import designs_of, pictogram_table

STEP = 0.06  # what a thing's extent may be above its smallest, as a share of the side


class Pairs(NamedTuple):
    """An `ImageSet` of the target classes; classes of the distractors (N,) as positions in `distractor_names`; boxes
    (N, 2, 4) around the target and the distractor: left, top, right, bottom in pixels; and whether the target is the
    larger of the two, (N,) bool."""

    images: ImageSet
    distractors: Tensor
    boxes: Tensor
    distractor_names: tuple[str, ...]
    target_larger: Tensor


def icon_pairs(split: str, per_class: int, size: int = 96, seed: int = 0) -> Pairs:
    """Pairs of icons: the target from the first half of the classes of `icons`, the distractor from the second.

    Both have the same colour. The target takes 55 to 61 % of the side, the distractor, in the opposite corner,
    30 to 36 %.

    Args:
        split: "train", "val" or "test"; different random numbers.
        per_class: images of each target class.
        size: side of the images in pixels, 32 or more.
        seed: of all random numbers.

    Raises:
        ValueError: an unknown split, fewer than one image a class, or images too small to show two icons.
    """
    designs = [[(DEJAVU, ICONS[name])] for name in ICON_NAMES]
    return _pairs("icon", ICON_NAMES, designs, (split, per_class, size, seed), large=(0.55, 0.13), crossed=False)


def pictogram_pairs(split: str, per_class: int, size: int = 96, seed: int = 0) -> Pairs:
    """Pairs of pictograms: a target from the first half of the classes of `pictograms`, a distractor from the second.

    Both have the same colour and stand in opposite corners. In every other image of a class the target is the larger,
    52 to 58 % of the side, and the distractor the smaller, 30 to 36 %; in the others it is the reverse. So neither size
    nor place says which of the two is asked for. The designs are those of the split.

    Args:
        split: "train", "val" or "test"; different random numbers, and in "test" other designers.
        per_class: images of each target class.
        size: side of the images in pixels, 32 or more.
        seed: of all random numbers.

    Raises:
        ValueError: an unknown split, fewer than one image a class, or images too small to show two things.
    """
    designs = designs_of(split) if split in IMAGES_PER_CLASS else []
    names = tuple(pictogram_table())
    return _pairs("pictogram", names, designs, (split, per_class, size, seed), large=(0.52, 0.15), crossed=True)


def _pairs(
    thing: str,
    names: tuple[str, ...],
    designs: Sequence[Sequence[tuple[Path, str]]],
    asked: tuple[str, int, int, int],
    large: tuple[float, float],
    crossed: bool,
) -> Pairs:
    """Pairs of what `designs` (fonts and characters of each class) draw.

    Args:
        asked: split, per_class, size and seed of the public functions.
        large: smallest extent of the larger thing, and how far from the middle it stands, as shares of the side.
        crossed: every other target is the smaller; else none.
    """
    split, per_class, size, seed = asked
    if split not in IMAGES_PER_CLASS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(IMAGES_PER_CLASS)}")
    if per_class < 1:
        raise ValueError(f"per_class={per_class}: expected at least 1 image a class")
    if size < 32:
        raise ValueError(f"size={size}: two {thing}s need at least 32 px")
    half = len(names) // 2
    images, boxes, labels, distractors, larger = [], [], [], [], []
    for target in range(half):
        for k in range(per_class):
            rng = np.random.default_rng([seed, 2, list(IMAGES_PER_CLASS).index(split), target, k])
            other = int(rng.integers(half, len(names)))
            glyphs = [of_class[int(rng.integers(len(of_class)))] for of_class in (designs[target], designs[other])]
            larger.append(not crossed or k % 2 == 0)
            places = (large, (0.30, -0.30)) if larger[-1] else ((0.30, -0.30), large)
            image, found = _draw(rng, size, glyphs, places)
            images.append(image)
            boxes.append(found)
            labels.append(target)
            distractors.append(other - half)
    pictures = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    image_set = ImageSet(pictures, torch.tensor(labels), names[:half], f"{thing} pairs", split)
    return Pairs(image_set, torch.tensor(distractors), torch.tensor(boxes), names[half:], torch.tensor(larger))


def _draw(
    rng: np.random.Generator,
    size: int,
    glyphs: Sequence[tuple[Path, str]],
    places: Sequence[tuple[float, float]],
) -> tuple[np.ndarray, list]:
    colour, background = distinct_colours(rng)
    corner, boxes = rng.choice([-1, 1], 2), []
    image = np.broadcast_to(background.astype(np.float64), (size, size, 3))
    for (font, character), (smallest, offset) in zip(glyphs, places, strict=True):
        extent, jitter, angle = (
            rng.uniform(smallest, smallest + STEP),
            rng.uniform(-0.02, 0.02, 2),
            rng.uniform(-20, 20),
        )
        mask = placed_mask(font, character, size, extent, offset * corner + jitter, angle)
        boxes.append(mask.getbbox())
        alpha = np.asarray(mask, dtype=np.float64)[..., None] / 255
        image = alpha * colour + (1 - alpha) * image
    return np.rint(image).astype(np.uint8), boxes
