"""`icons`: pictographs of DejaVu Sans (the font inside matplotlib), drawn in random colours, sizes and positions.

Every class has a plain English name, so that CLIP can be asked for it, and none looks like an ImageNet photo,
so that a frozen ImageNet model has something to adapt to.
"""

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

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

_OVERSAMPLING = 3  # glyphs are drawn larger and reduced, for smooth edges at any size
_LUMA = np.array([0.299, 0.587, 0.114])


def draw_icon(size: int, seed: int, split: str, class_index: int, image_index: int) -> np.ndarray:
    """Image `image_index` of a class: (size, size, 3) uint8, a pure function of its arguments.

    The glyph takes 60-95 % of the side, is shifted by up to 8 % and rotated by up to 20 degrees; fore- and
    background colours differ by at least 70 grey levels.
    """
    rng = np.random.default_rng([seed, list(IMAGES_PER_CLASS).index(split), class_index, image_index])
    while True:  # about two draws in three are far enough apart
        foreground, background = rng.integers(0, 256, (2, 3))
        if abs((foreground - background) @ _LUMA) >= 70:
            break
    extent, shift, angle = rng.uniform(0.60, 0.95), rng.uniform(-0.08, 0.08, 2), rng.uniform(-20, 20)

    side = size * _OVERSAMPLING
    font, (left, top, right, bottom) = _font_and_box(ICONS[ICON_NAMES[class_index]])
    font = font.font_variant(size=font.size * extent * side / max(right - left, bottom - top))
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).text((side / 2, side / 2), ICONS[ICON_NAMES[class_index]], fill=255, font=font, anchor="mm")
    # "mm" centres the line, not the ink: bring the ink itself to the middle before turning it there.
    ink = mask.getbbox()
    centre = ((ink[0] + ink[2]) / 2 - side / 2, (ink[1] + ink[3]) / 2 - side / 2)
    mask = mask.transform((side, side), Image.Transform.AFFINE, (1, 0, centre[0], 0, 1, centre[1]), Image.BILINEAR)
    mask = mask.rotate(angle, Image.BICUBIC, translate=tuple(shift * side)).reduce(_OVERSAMPLING)
    alpha = np.asarray(mask, dtype=np.float64)[..., None] / 255
    return np.rint(alpha * foreground + (1 - alpha) * background).astype(np.uint8)


def load_icons(split: str, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split: (N, size, size, 3) uint8 and (N,) int64, ordered by class."""
    per_class = IMAGES_PER_CLASS[split]
    labels = np.repeat(np.arange(len(ICONS)), per_class)
    images = np.stack([draw_icon(size, seed, split, c, i) for c in range(len(ICONS)) for i in range(per_class)])
    return images, labels


@cache
def _font_and_box(character: str):
    """DejaVu Sans at a reference size, and the box of the character's ink at that size."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(path, 200)
    return font, font.getbbox(character)
