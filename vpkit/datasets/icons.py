"""`icons`: pictographs of DejaVu Sans (the font inside matplotlib), drawn in random colours, sizes and positions.

Every class has a plain English name, so that CLIP can be asked for it, and none looks like an ImageNet photo,
so that a frozen ImageNet model has something to adapt to.
"""

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import scipy  # its parts load when they are used
from PIL import Image, ImageChops, ImageDraw, ImageFont

from vpkit.datasets.source import Source

ICONS = {  # class name: character
    "house": "⌂", "keyboard": "⌨", "sun": "☀", "cloud": "☁", "umbrella": "☂", "snowman": "☃", "comet": "☄",
    "star": "★", "telephone": "☎", "cup": "☕", "shamrock": "☘", "pointing hand": "☞",
    "skull and crossbones": "☠", "radioactive sign": "☢", "biohazard sign": "☣", "ankh": "☥",
    "star and crescent": "☪", "peace symbol": "☮", "yin yang": "☯", "wheel": "☸", "frowning face": "☹",
    "smiling face": "☺", "moon": "☽", "chess king": "♚", "chess queen": "♛", "chess rook": "♜",
    "chess bishop": "♝", "chess knight": "♞", "chess pawn": "♟", "spade": "♠", "heart": "♥", "diamond": "♦",
    "club": "♣", "hot spring": "♨", "music note": "♫", "recycling symbol": "♻", "wheelchair": "♿", "die": "⚄",
    "flag": "⚑", "hammer and pick": "⚒", "anchor": "⚓", "crossed swords": "⚔", "scales": "⚖", "alembic": "⚗",
    "flower": "⚘", "gear": "⚙", "atom": "⚛", "fleur-de-lis": "⚜", "warning sign": "⚠", "lightning": "⚡",
    "coffin": "⚰", "urn": "⚱", "scissors": "✂", "airplane": "✈", "envelope": "✉", "victory hand": "✌",
    "writing hand": "✍", "pencil": "✏", "pen nib": "✒", "check mark": "✔", "snowflake": "❄",
    "playing card": "🂡", "mouse": "🐭", "cow": "🐮", "cat": "🐱", "monkey": "🐵",
}  # fmt: skip
ICON_NAMES = tuple(ICONS)
IMAGES_PER_CLASS = {"train": 64, "val": 16, "test": 32}

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
STYLES = ("plain", "sketch", "inverted", "noisy", "textured")

_OVERSAMPLING = 3  # glyphs are drawn larger and reduced, for smooth edges at any size
_LUMA = np.array([0.299, 0.587, 0.114])


def draw_icon(size: int, seed: int, split: str, class_index: int, image_index: int, style: str = "plain") -> np.ndarray:
    """Image `image_index` of a class: (size, size, 3) uint8, a pure function of its arguments.

    The glyph takes 60-95 % of the side, is shifted by up to 8 % and rotated by up to 20 degrees; fore- and
    background colours differ by at least 70 grey levels. The styles share colours, size and place with "plain":
    "sketch" keeps only the outline, dark on white; "inverted" cuts the glyph out of a disc of its colour; "noisy"
    adds Gaussian noise; "textured" fills the background with stripes.
    """
    rng = np.random.default_rng([seed, list(IMAGES_PER_CLASS).index(split), class_index, image_index])
    return draw_glyph(size, rng, DEJAVU, ICONS[ICON_NAMES[class_index]], style)


def draw_glyph(size: int, rng: np.random.Generator, font: Path, character: str, style: str = "plain") -> np.ndarray:
    """One character of a font as a picture (size, size, 3) uint8, in colours and at a place that `rng` draws."""
    foreground, background = distinct_colours(rng)
    extent, shift, angle = rng.uniform(0.60, 0.95), rng.uniform(-0.08, 0.08, 2), rng.uniform(-20, 20)
    if style == "inverted":
        extent *= 0.66  # the glyph must fit the disc it is cut from
    side = size * _OVERSAMPLING
    mask = _placed_glyph(font, character, side, extent, shift * side, angle)
    if style == "sketch":
        stroke = 2 * (side // 60) + 3
        # As Pillow's MaxFilter, which is not separable and took five sixths of the time of a sketch.
        thick = Image.fromarray(scipy.ndimage.maximum_filter(np.asarray(mask), stroke, mode="nearest"))
        mask = ImageChops.subtract(thick, mask)
        foreground, background = np.full(3, 40), np.full(3, 250)
    elif style == "inverted":
        disc = Image.new("L", (side, side))
        ImageDraw.Draw(disc).ellipse((0.02 * side, 0.02 * side, 0.98 * side, 0.98 * side), fill=255)
        mask = ImageChops.subtract(disc, mask)
    alpha = np.asarray(mask.reduce(_OVERSAMPLING), dtype=np.float64)[..., None] / 255
    if style == "textured":
        background = _stripes(size, rng, background)
    image = alpha * foreground + (1 - alpha) * background
    if style == "noisy":
        image = image + rng.normal(0, 45, image.shape)
    return np.rint(image).clip(0, 255).astype(np.uint8)


def load_icons(split: str, seed: int, style: str = "plain") -> Source:
    """A split in one of the `STYLES`, ordered by class.

    Raises:
        ValueError: unknown style.
    """
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r} of icons: expected icons:NAME with one of {', '.join(STYLES[1:])}")
    per_class = IMAGES_PER_CLASS[split]
    labels = np.repeat(np.arange(len(ICONS)), per_class)

    def decode(i, size):
        return draw_icon(size, seed, split, *divmod(int(i), per_class), style)

    return Source(labels, ICON_NAMES, decode, fingerprint=f"{split} {seed} {style}")


def distinct_colours(rng: np.random.Generator) -> np.ndarray:
    """Two random colours (2, 3), at least 70 grey levels apart."""
    while True:  # about two draws in three are far enough apart
        colours = rng.integers(0, 256, (2, 3))
        if abs((colours[0] - colours[1]) @ _LUMA) >= 70:
            return colours


def placed_mask(font: Path, character: str, size: int, extent: float, shift: np.ndarray, angle: float) -> Image.Image:
    """One character as a mask of `size` px: `extent` and `shift` as shares of the side, `angle` in degrees."""
    side = size * _OVERSAMPLING
    return _placed_glyph(font, character, side, extent, shift * side, angle).reduce(_OVERSAMPLING)


def _placed_glyph(path: Path, character: str, side: int, extent: float, shift: np.ndarray, angle: float) -> Image.Image:
    """The glyph as a mask: its ink centred, as large as `extent` of the side, then rotated and shifted."""
    font, (left, top, right, bottom) = _font_and_box(path, character)
    font = font.font_variant(size=font.size * extent * side / max(right - left, bottom - top))
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).text((side / 2, side / 2), character, fill=255, font=font, anchor="mm")
    # "mm" centres the line, not the ink: bring the ink itself to the middle before turning it there.
    ink = mask.getbbox()
    assert ink is not None  # no icon is blank
    centre = ((ink[0] + ink[2]) / 2 - side / 2, (ink[1] + ink[3]) / 2 - side / 2)
    mask = mask.transform(
        (side, side), Image.Transform.AFFINE, (1, 0, centre[0], 0, 1, centre[1]), Image.Resampling.BILINEAR
    )
    return mask.rotate(angle, Image.Resampling.BICUBIC, translate=tuple(shift))


def _stripes(size: int, rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Soft stripes of random direction and width around `colour`, 30 grey levels either way."""
    direction, period = rng.uniform(0, np.pi), rng.uniform(0.08, 0.25) * size
    rows, columns = np.mgrid[:size, :size]
    wave = np.sin(2 * np.pi * (np.cos(direction) * columns + np.sin(direction) * rows) / period)
    return colour + 30 * wave[..., None]


@cache
def _font_and_box(path: Path, character: str):
    """The font at a reference size, and the box of the character's ink at that size."""
    font = ImageFont.truetype(path, 200)
    return font, font.getbbox(character)
