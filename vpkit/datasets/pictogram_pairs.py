"""Images that hold two pictograms, one of a class that is asked for and one that distracts, and where they are."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vpkit.datasets.icons import distinct_colours, placed_mask
from vpkit.datasets.image_set import ImageSet
from vpkit.datasets.pictograms import IMAGES_PER_CLASS, designs_of, pictogram_table

LARGE, SMALL, STEP = 0.52, 0.30, 0.06  # smallest extents of the larger and the smaller, and their range


class PictogramPairs(NamedTuple):
    """An `ImageSet` of the target classes; classes of the distractors (N,) as positions in `distractor_names`; boxes
    (N, 2, 4) around the target and the distractor: left, top, right, bottom in pixels; and whether the target is the
    larger of the two, (N,) bool."""

    images: ImageSet
    distractors: Tensor
    boxes: Tensor
    distractor_names: tuple[str, ...]
    target_larger: Tensor


def pictogram_pairs(split: str, per_class: int, size: int = 96, seed: int = 0) -> PictogramPairs:
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
    if split not in IMAGES_PER_CLASS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(IMAGES_PER_CLASS)}")
    if per_class < 1:
        raise ValueError(f"per_class={per_class}: expected at least 1 image a class")
    if size < 32:
        raise ValueError(f"size={size}: two pictograms need at least 32 px")
    names, designs = tuple(pictogram_table()), designs_of(split)
    half = len(names) // 2
    images, boxes, labels, distractors, larger = [], [], [], [], []
    for target in range(half):
        for k in range(per_class):
            rng = np.random.default_rng([seed, 2, list(IMAGES_PER_CLASS).index(split), target, k])
            other = int(rng.integers(half, len(names)))
            glyphs = [of_class[rng.integers(len(of_class))] for of_class in (designs[target], designs[other])]
            image, found = _draw(rng, size, glyphs, target_larger=k % 2 == 0)
            images.append(image)
            boxes.append(found)
            labels.append(target)
            distractors.append(other - half)
            larger.append(k % 2 == 0)
    pictures = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    image_set = ImageSet(pictures, torch.tensor(labels), names[:half], "pictogram pairs", split)
    return PictogramPairs(image_set, torch.tensor(distractors), torch.tensor(boxes), names[half:], torch.tensor(larger))


def _draw(rng: np.random.Generator, size: int, glyphs: list, target_larger: bool) -> tuple[np.ndarray, list]:
    colour, background = distinct_colours(rng)
    corner, boxes = rng.choice([-1, 1], 2), []
    image = np.broadcast_to(background.astype(np.float64), (size, size, 3))
    places = ((LARGE, 0.15), (SMALL, -0.30)) if target_larger else ((SMALL, -0.30), (LARGE, 0.15))
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
