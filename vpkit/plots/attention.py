"""Attention maps over the images they belong to."""

import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle
from torch import Tensor

from vpkit.plots.style import displayable, finished


def show_attention(images: Tensor, maps: dict[str, Tensor], boxes: Tensor, titles: list[str], side: float = 1.15):
    """A column per image: the image with its boxes, and below it one heat map per method.

    Args:
        images: (N, 3, h, w) uint8 or in [0, 1].
        maps: method to (N, g, g); each is drawn from 0 to its own largest value. A difference of two maps, which has
            values below 0, is drawn from blue (less) over white to red (more).
        boxes: (N, 2, 4) around the target (solid) and the distractor (dotted), in pixels.
        titles: N, above the columns.
    """
    count, extent = len(images), (0, images.shape[3], images.shape[2], 0)
    size = (side * count, side * (len(maps) + 1) + 0.3)
    figure, axes = plt.subplots(len(maps) + 1, count, figsize=size, squeeze=False, layout="constrained")
    for column in range(count):
        axes[0, column].imshow(displayable(images[column]), extent=extent)
        axes[0, column].set_title(titles[column], fontsize=7)
        for row, found in enumerate(maps.values(), 1):
            values = found[column].cpu().numpy()
            largest = abs(values).max()
            how = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest} if (found < 0).any() else {"cmap": "magma"}
            axes[row, column].imshow(values, extent=extent, **{"vmin": 0, **how})
        for row, axis in enumerate(axes[:, column]):
            axis.set(xticks=[], yticks=[])
            for (left, top, right, bottom), style in zip(boxes[column].tolist(), ("-", ":"), strict=True):
                where = (left, top), right - left, bottom - top
                colour = "#333333" if row and (list(maps.values())[row - 1] < 0).any() else "#56B4E9"
                axis.add_patch(Rectangle(*where, fill=False, edgecolor=colour, linestyle=style, linewidth=1.3))
    for row, method in enumerate(("image", *maps)):
        axes[row, 0].set_ylabel(method, fontsize=8)
    return finished(figure)
