"""Class names as pictures (LoGoPrompt): rendered on strips and pasted on images."""

from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["paste", "render_class_names", "strip_offsets"]

CONTRAST = 4.5  # WCAG 2 calls text legible from this ratio of luminances on
SMALLEST = 5  # pixels from the top of a line of type to its bottom; smaller, no letter can be told from another
LOCATIONS = ("random", "top", "bottom")


def render_class_names(
    class_names: Sequence[str], width: int, height: int, seed: int = 0, font: str | Path | None = None
) -> Tensor:
    """One strip per class with its name in a random colour on another: (T, 3, height, width) uint8.

    The type is as large as fits, on up to three lines. Colours are drawn once per class from `seed`, again and again
    until they differ by a contrast ratio of 4.5.

    Args:
        class_names: T names.
        width, height: of every strip, in pixels; a ratio of 1/7 of a 224 px image is `width=224, height=32`.
        seed: of the colours.
        font: a TrueType file; DejaVu Sans, which matplotlib brings along, by default.

    Raises:
        ValueError: a name that would be drawn empty (only spaces, or letters the font lacks) or too small to read.

    Source: Shi & Yang 2023, Sec. 3.2.1. Explained in chapter 5.
    """
    path = Path(font) if font else _default_font()
    _check_letters(class_names, path)
    generator = np.random.default_rng(seed)
    strips = []
    for name in class_names:
        text, background = _colours(generator)
        strips.append(_strip(name, width, height, path, text, background))
    return torch.from_numpy(np.stack(strips)).permute(0, 3, 1, 2).contiguous()


def strip_offsets(
    count: int, image_size: int, height: int, location: str = "random", seed: int | None = None
) -> Tensor:
    """Where `count` strips go: (count,) row of their upper edge.

    Args:
        location: "random", "top" or "bottom".
        seed: gives the same rows every time, for tests; None draws from torch's generator.

    Raises:
        ValueError: a strip larger than the image, an unknown location.
    """
    if not 1 <= height <= image_size:
        raise ValueError(f"a strip {height} px high does not fit an image of {image_size} px: use a smaller ratio")
    if location not in LOCATIONS:
        raise ValueError(f"location={location!r}: expected one of {', '.join(LOCATIONS)}")
    if location != "random":
        return torch.full((count,), 0 if location == "top" else image_size - height)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return torch.randint(image_size - height + 1, (count,), generator=generator)


def paste(images: Tensor, strips: Tensor, top: Tensor) -> Tensor:
    """Full-width strips over images, one each: x_c of Shi & Yang, Sec. 3.2.1.

    Args:
        images: (B, 3, H, W) in [0, 1].
        strips: (B, 3, h, W) in [0, 1], or uint8.
        top: (B,) row of each strip's upper edge; checked if it is on the CPU.

    Returns:
        (B, 3, H, W); gradients reach both the images and the strips.

    Raises:
        ValueError: strips that are larger than the images, of another width, or that reach over the edge.
    """
    strips = strips.float() / 255 if strips.dtype == torch.uint8 else strips
    height, width = strips.shape[2:]
    if height > images.shape[2] or width != images.shape[3]:
        raise ValueError(
            f"strips of {height} x {width} px do not fit images of {images.shape[2]} x {images.shape[3]} px: "
            "render them with width= the side of the images and a smaller height"
        )
    # Rows on a GPU are not looked at: that would wait for it at every step.
    on_cpu = top.device.type == "cpu"
    if on_cpu and len(top) and not 0 <= int(top.min()) <= int(top.max()) <= images.shape[2] - height:
        raise ValueError(f"top={top.tolist()[:5]}: expected rows in 0..{images.shape[2] - height}")
    each = torch.arange(len(images), device=images.device)[:, None]
    rows = top.to(images.device)[:, None] + torch.arange(height, device=images.device)  # (B, h)
    moved = strips.to(images).permute(0, 2, 3, 1)  # (B, h, W, 3)
    return images.permute(0, 2, 3, 1).index_put((each, rows), moved).permute(0, 3, 1, 2)


def _default_font() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def _check_letters(class_names: Sequence[str], path: Path) -> None:
    from matplotlib.ft2font import FT2Font

    font = FT2Font(str(path))
    for name in class_names:
        if not name.strip():
            raise ValueError(f"class name {name!r} renders empty: give the class a name")
        lacking = sorted({letter for letter in name if not letter.isspace() and not font.get_char_index(ord(letter))})
        if lacking:
            raise ValueError(
                f"class name {name!r}: {path.name} has no letters {' '.join(lacking)}; pass font= a file that has them"
            )


def _strip(name: str, width: int, height: int, path: Path, text: np.ndarray, background: np.ndarray) -> np.ndarray:
    size, lines = max(
        ((_largest_size(lines, width, height, path), lines) for lines in _broken(name)), key=lambda found: found[0]
    )
    font = ImageFont.truetype(str(path), size)
    line_height = sum(font.getmetrics())
    if size < SMALLEST:
        raise ValueError(
            f"class name {name!r} fits a strip of {width} x {height} px only in type of {size} px, which nobody can "
            "read: use a larger strip or a shorter name"
        )
    image = Image.new("RGB", (width, height), tuple(background.tolist()))
    draw, top = ImageDraw.Draw(image), (height - line_height * len(lines)) / 2
    for k, line in enumerate(lines):
        position = ((width - font.getlength(line)) / 2, top + k * line_height)
        draw.text(position, line, fill=tuple(text.tolist()), font=font)
    return np.asarray(image)


def _largest_size(lines: list[str], width: int, height: int, path: Path) -> int:
    low, high = 1, 2 * height
    while low < high:
        middle = (low + high + 1) // 2
        font = ImageFont.truetype(str(path), middle)
        wide = max(font.getlength(line) for line in lines)
        fits = wide <= 0.96 * width and sum(font.getmetrics()) * len(lines) <= 1.08 * height
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _broken(name: str) -> list[list[str]]:
    """The name on one, two and three lines, broken where the longest line is shortest."""
    words = name.replace("_", " ").split()
    ways = [[" ".join(words)]]
    for k in range(2, min(3, len(words)) + 1):
        cuts = [[0, *cut, len(words)] for cut in _cuts(len(words), k - 1)]
        lines = [[" ".join(words[a:b]) for a, b in pairwise(cut)] for cut in cuts]
        ways.append(min(lines, key=lambda way: max(map(len, way))))
    return ways


def _cuts(count: int, cuts: int) -> list[tuple[int, ...]]:
    return list(combinations(range(1, count), cuts))


def _colours(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    while True:
        text, background = generator.integers(0, 256, (2, 3), dtype=np.uint8)
        dark, light = sorted((_luminance(text), _luminance(background)))
        if (light + 0.05) / (dark + 0.05) >= CONTRAST:
            return text, background


def _luminance(colour: np.ndarray) -> float:
    """Relative luminance of an sRGB colour, as WCAG 2 defines it."""
    linear = np.where(colour / 255 <= 0.04045, colour / 255 / 12.92, ((colour / 255 + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
