"""Images that hold two icons, one of a class that is asked for and one that distracts, and where they are."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vpkit.datasets.icons import DEJAVU, ICON_NAMES, ICONS, IMAGES_PER_CLASS, distinct_colours, placed_mask
from vpkit.datasets.image_set import ImageSet


class IconPairs(NamedTuple):
    """An `ImageSet` of the target classes; classes of the distractors (N,) as positions in `distractor_names`; and
    boxes (N, 2, 4) around the target and the distractor: left, top, right, bottom in pixels."""

    images: ImageSet
    distractors: Tensor
    boxes: Tensor
    distractor_names: tuple[str, ...]


def icon_pairs(split: str, per_class: int, size: int = 96, seed: int = 0) -> IconPairs:
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
    if split not in IMAGES_PER_CLASS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(IMAGES_PER_CLASS)}")
    if per_class < 1:
        raise ValueError(f"per_class={per_class}: expected at least 1 image a class")
    if size < 32:
        raise ValueError(f"size={size}: two icons need at least 32 px")
    half = len(ICON_NAMES) // 2
    images, boxes, labels, distractors = [], [], [], []
    for target in range(half):
        for k in range(per_class):
            rng = np.random.default_rng([seed, 2, list(IMAGES_PER_CLASS).index(split), target, k])
            other = int(rng.integers(half, len(ICON_NAMES)))
            image, found = _draw(rng, size, (target, other))
            images.append(image)
            boxes.append(found)
            labels.append(target)
            distractors.append(other - half)
    pictures = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    names = ICON_NAMES[:half]
    image_set = ImageSet(pictures, torch.tensor(labels), names, "icon pairs", split)
    return IconPairs(image_set, torch.tensor(distractors), torch.tensor(boxes), ICON_NAMES[half:])


def _draw(rng: np.random.Generator, size: int, classes: tuple[int, int]) -> tuple[np.ndarray, list]:
    colour, background = distinct_colours(rng)
    corner, boxes = rng.choice([-1, 1], 2), []
    image = np.broadcast_to(background.astype(np.float64), (size, size, 3))
    for class_index, smallest, offset in zip(classes, (0.55, 0.30), (0.13, -0.30), strict=True):
        extent, jitter, angle = (
            rng.uniform(smallest, smallest + 0.06),
            rng.uniform(-0.02, 0.02, 2),
            rng.uniform(-20, 20),
        )
        shift = offset * corner + jitter
        mask = placed_mask(DEJAVU, ICONS[ICON_NAMES[class_index]], size, extent, shift, angle)
        boxes.append(mask.getbbox())
        alpha = np.asarray(mask, dtype=np.float64)[..., None] / 255
        image = alpha * colour + (1 - alpha) * image
    return np.rint(image).astype(np.uint8), boxes
