"""Attention maps over the images they belong to."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle
from torch import Tensor

from vpkit.datasets.pairs import Pairs
from vpkit.plots.style import displayable, finished


def show_attention(pairs: Pairs, maps: Mapping[str, Tensor], rows: Sequence[int] | Tensor, side: float = 1.15):
    """A column per image: the image with its class and boxes, and below it one heat map per method.

    Args:
        pairs: images of two things, with boxes around the target (drawn solid) and the distractor (dotted).
        maps: method to (N, g, g), see `look_at_pairs`; each is drawn from 0 to its own largest value. A difference of
            two maps, which has values below 0, is drawn from blue (less) over white to red (more).
        rows: which of the N images.
        side: of an image, in inches.
    """
    rows = torch.as_tensor(rows)
    shown, boxes = pairs.images[rows], pairs.boxes[rows]
    images, titles = shown.images, [shown.class_names[label] for label in shown.labels]
    maps = {method: found[rows] for method, found in maps.items()}
    count, extent = len(images), (0, images.shape[3], images.shape[2], 0)
    size = (side * count, side * (len(maps) + 1) + 0.3)
    figure, axes = plt.subplots(len(maps) + 1, count, figsize=size, squeeze=False, layout="constrained")
    differences = [False, *(bool((found < 0).any()) for found in maps.values())]  # of each row; the images' first
    for column in range(count):
        axes[0, column].imshow(displayable(images[column]), extent=extent)
        axes[0, column].set_title(titles[column], fontsize=7)
        for axis, found, is_difference in zip(axes[1:, column], maps.values(), differences[1:], strict=True):
            values = found[column].cpu().numpy()
            largest = abs(values).max()
            how = (
                {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest} if is_difference else {"cmap": "magma", "vmin": 0}
            )
            axis.imshow(values, extent=extent, **how)
        for axis, is_difference in zip(axes[:, column], differences, strict=True):
            axis.set(xticks=[], yticks=[])
            for (left, top, right, bottom), style in zip(boxes[column].tolist(), ("-", ":"), strict=True):
                where = (left, top), right - left, bottom - top
                colour = "#333333" if is_difference else "#56B4E9"  # light blue is lost beside light red and blue
                axis.add_patch(Rectangle(*where, fill=False, edgecolor=colour, linestyle=style, linewidth=1.3))
    for row, method in enumerate(("image", *maps)):
        axes[row, 0].set_ylabel(method, fontsize=8)
    return finished(figure)
