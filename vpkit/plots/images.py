"""Images, and prompts three ways."""

from textwrap import fill

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from vpkit.datasets.image_set import ImageSet
from vpkit.interfaces import Normalises, PixelPrompt, normalised
from vpkit.plots.style import displayable, finished


def show_images(
    images: Tensor, titles: list[str] | None = None, columns: int = 8, side: float = 1.0, wrap: int | None = None
):
    """A grid of images, (N, 3, h, w), uint8 or floats in [0, 1] (values beyond are clipped).

    Args:
        titles: one an image.
        columns: images in a row.
        side: of an image, in inches.
        wrap: lines of titles are broken after so many letters.
    """
    if titles and wrap:
        titles = ["\n".join(fill(line, wrap) for line in title.splitlines()) for title in titles]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    text_room = 0.28 if titles else 0.0
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * side, rows * (side + text_room)), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for position, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        axis.imshow(displayable(image))
        if titles:
            axis.set_title(titles[position], fontsize=7)
    return finished(figure)


def show_examples(images: ImageSet, count: int = 16, **options):
    """Some images of a set, evenly spaced, with the names of their classes; `options` as for `show_images`."""
    some = images[torch.linspace(0, len(images) - 1, min(count, len(images))).long()]
    return show_images(some.images, [images.class_names[t] for t in some.labels], **options)


def show_prompt(prompt: PixelPrompt, image: Tensor, model: Normalises | None = None, side: float = 1.5):
    """A prompt three ways: alone, on an image, and as the model sees it (normalised, stretched to full range).

    Args:
        prompt: a pixel prompt with `picture()`.
        image: (3, h, h) float in [0, 1].
        model: its `mean` and `std` make the third picture, left out without it.
    """
    with torch.no_grad():
        picture = prompt.picture()
        prompted = prompt(image[None].to(picture.device))[0]
    low, high = float(picture.min()), float(picture.max())
    alone = picture if low >= 0 and high <= 1 else 0.5 + picture / (2 * max(abs(low), abs(high), 1e-9))
    pictures, titles = [alone, prompted], ["the prompt alone", "on an image"]
    if model is not None:
        seen = normalised(prompted.to(model.mean.device), model)
        pictures.append((seen - seen.min()) / (seen.max() - seen.min()).clamp(min=1e-9))
        titles.append("as the model sees it")
    figure, axes = plt.subplots(1, len(pictures), figsize=(side * len(pictures), side + 0.3), layout="constrained")
    for axis, shown, title in zip(axes, pictures, titles, strict=True):
        axis.imshow(displayable(shown))
        axis.set_title(title, fontsize=8)
        axis.axis("off")
    return finished(figure)
