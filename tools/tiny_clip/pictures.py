"""Training pictures for `tiny`, composed in batches on the fly: a drawing on a background, a style, perhaps a name.

Everything is a torch operation over the whole batch, so that a CPU makes pictures faster than it can learn from them.
"""

import math
from dataclasses import dataclass

import torch
from tiny_clip.concepts import SIDE
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate, max_pool2d, pad

KINDS = {"emoji": 0.20, "symbol": 0.27, "clipart": 0.08, "shape": 0.03, "photo": 0.14, "word": 0.28}

STYLES = {  # style: words by which a template of CLIP's 81 asks for it
    "plain": (),
    "pixelated": ("pixelated", "low resolution"),
    "grey": ("black and white",),
    "blurry": ("blurry",),
    "dark": ("dark photo",),
    "bright": ("bright",),
    "close": ("close-up", "cropped"),
    "sketch": ("sketch", "drawing", "doodle"),
    "small": ("small",),
    "many": ("many",),
    "corrupted": ("jpeg corrupted",),
    "faint": ("hard to see",),
    "dirty": ("dirty",),
    "relief": ("sculpture",),
    "cartoon": ("cartoon",),
    "painting": ("painting",),
}
STYLE_NAMES = tuple(STYLES)


def style_of(template: str) -> str:
    """The style a template asks for; "plain" if none."""
    return next((style for style, words in STYLES.items() if any(word in template for word in words)), "plain")


@dataclass
class Banks:
    """Drawings by kind (N, 4, SIDE, SIDE), photos (N, 3, 32, 32) and words (N, h, SIDE), each with concepts (N,)."""

    drawings: dict[str, tuple[Tensor, Tensor]]
    photos: tuple[Tensor, Tensor]
    words: tuple[Tensor, Tensor]
    weight: Tensor  # (C,) how often a concept is drawn, relative to others of its kind

    def __post_init__(self):
        self.chances = {}
        for kind, (_, labels) in (*self.drawings.items(), ("photo", self.photos), ("word", self.words)):
            count = torch.bincount(labels, minlength=len(self.weight))
            self.chances[kind] = (self.weight / count.clamp(min=1))[labels]

    def draw(self, kind: str, count: int, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        images, labels = {"photo": self.photos, "word": self.words}.get(kind) or self.drawings[kind]
        chances = self.chances[kind] if allowed is None else self.chances[kind] * allowed[labels]
        chosen = torch.multinomial(chances, count, replacement=True)
        return images[chosen].float() / 255, labels[chosen]

    def word_of(self, concepts: Tensor) -> Tensor:
        """For each concept the position of its word in a random font; -1 if it is not on the reading list."""
        labels = self.words[1]
        order = torch.randperm(len(labels))
        position = torch.full((len(self.weight),), -1)
        position[labels[order]] = order
        return position[concepts]


def compose(banks: Banks, count: int, easy_words: Tensor | None = None, strips: float = 0.25, styled: float = 0.45):
    """`count` pictures (count, 3, SIDE, SIDE), their two concepts (count, 2) (equal if there is one), their style.

    Args:
        easy_words: (C,) bool, the only words shown; None for all.
        strips: share of the pictures that carry a name, half of the time their own.
        styled: share of the pictures in a style other than plain.
    """
    kinds = torch.multinomial(torch.tensor(list(KINDS.values())), count, replacement=True)
    images, concepts = torch.empty(count, 3, SIDE, SIDE), torch.empty(count, 2, dtype=torch.int64)
    for k, kind in enumerate(KINDS):
        rows = torch.where(kinds == k)[0]
        if len(rows) == 0:
            continue
        drawn, labels = banks.draw(kind, len(rows), easy_words if kind == "word" else None)
        if kind == "photo":
            images[rows] = photographed(drawn)
        elif kind == "word":
            images[rows] = written(drawn)
        else:
            images[rows] = painted(drawn, banks, symbol=kind == "symbol")
        concepts[rows] = labels[:, None]
    words = kinds == list(KINDS).index("word")
    styles = torch.where((torch.rand(count) < styled) & ~words, torch.randint(1, len(STYLES), (count,)), 0)
    for style in range(1, len(STYLES)):
        rows = torch.where(styles == style)[0]
        if len(rows):
            images[rows] = in_style(images[rows], STYLE_NAMES[style])
    rows = torch.where((torch.rand(count) < strips / (1 - styled)) & ~words & (styles == 0))[0]
    if len(rows):
        named, labels = banks.draw("word", len(rows), easy_words)
        own = banks.word_of(concepts[rows, 0])
        mine = (own >= 0) & (torch.rand(len(rows)) < 0.5)
        named[mine], labels[mine] = banks.words[0][own[mine]].float() / 255, concepts[rows, 0][mine]
        images[rows], concepts[rows, 1] = with_strip(images[rows], named), labels
    return images.clamp_(0, 1), concepts, styles


def transform(count: int, scale, turn: float, shift: float) -> Tensor:
    """Affine matrices (count, 2, 3) from output to input: scales, up to `turn` degrees, `shift` of a side."""
    size = uniform(count, *scale)
    angle = torch.deg2rad(uniform(count, -turn, turn))
    cos, sin = angle.cos() / size, angle.sin() / size
    move = uniform(2 * count, -shift, shift).view(2, count) * 2
    return torch.stack(
        [torch.stack([cos, -sin, -(cos * move[0] - sin * move[1])], 1),
         torch.stack([sin, cos, -(sin * move[0] + cos * move[1])], 1)], 1
    )  # fmt: skip


def uniform(count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count)


def painted(drawn: Tensor, banks: Banks, symbol: bool) -> Tensor:
    """RGBA drawings on backgrounds: as they are, as silhouette, outline or in two tones."""
    count = len(drawn)
    placed = grid_sample(
        drawn,
        affine_grid(transform(count, (0.45, 1.0), 22, 0.12), drawn.shape, align_corners=False),
        align_corners=False,
    )
    alpha, colour = placed[:, 3:], placed[:, :3]
    background, tone = backgrounds(count, banks)
    ink = contrasting(tone)
    mode = torch.rand(count, 1, 1, 1)
    stroke = 2 * int(torch.randint(1, 3, ())) + 1
    outline = (max_pool2d(alpha, stroke, 1, stroke // 2) - alpha).clamp(0, 1)
    outline = torch.maximum(outline, alpha * (alpha - avg_pool2d(alpha, 3, 1, 1)).clamp(0, 1) * 2)
    grey = colour.mean(1, keepdim=True)
    middle = (grey * alpha).sum((2, 3), keepdim=True) / alpha.sum((2, 3), keepdim=True).clamp(min=1)
    two = torch.where(grey > middle, ink, 0.35 * ink + 0.65 * tone)
    flat = ink.expand_as(colour)
    if symbol:
        fill, cover = flat, torch.where(mode < 0.8, alpha, outline)
    else:
        fill = torch.where(mode < 0.5, colour, torch.where(mode < 0.85, flat, two))
        cover = torch.where((mode >= 0.7) & (mode < 0.85), outline, alpha)
    return cover * fill + (1 - cover) * background


def backgrounds(count: int, banks: Banks) -> tuple[Tensor, Tensor]:
    """Plain, graded, striped, speckled or photographic; and their mean colour (count, 3, 1, 1)."""
    base, other = torch.rand(2, count, 3, 1, 1)
    ramp = torch.linspace(0, 1, SIDE)
    angle = uniform(count, 0, 2 * math.pi)[:, None, None]
    along = (ramp[None, :, None] * angle.sin() + ramp[None, None, :] * angle.cos())[:, None]
    kind = torch.rand(count, 1, 1, 1)
    graded = base + (other - base) * 0.5 * along.abs()
    period = uniform(count, 0.06, 0.3)[:, None, None, None]
    striped = base + 0.15 * torch.sin(2 * math.pi * along / period)
    speckled = base + 0.12 * torch.randn(count, 3, SIDE, SIDE)
    photos, _ = banks.draw("photo", count)
    photos = interpolate(photos, (SIDE, SIDE), mode="bilinear", align_corners=False)
    photos = 0.6 * photos + 0.4 * base  # paler, so that the drawing is what the picture shows
    images = torch.where(kind < 0.5, base.expand_as(photos), torch.where(kind < 0.62, graded, striped))
    images = torch.where(kind < 0.72, images, torch.where(kind < 0.82, speckled, photos)).clamp(0, 1)
    return images, images.mean((2, 3), keepdim=True)


def contrasting(tone: Tensor) -> Tensor:
    """Random colours at least 0.25 in luminance away from `tone` (count, 3, 1, 1), towards the side with more room."""
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    lightness = (tone * luma).sum(1, keepdim=True)
    colour = torch.rand_like(tone)
    own = (colour * luma).sum(1, keepdim=True)
    aim = torch.where(
        lightness > 0.5, (lightness - 0.25) * torch.rand_like(own), 1 - (0.75 - lightness) * torch.rand_like(own)
    )
    shifted = (colour + aim - own).clamp(0, 1)
    return torch.where((own - lightness).abs() > 0.28, colour, shifted)


def photographed(photos: Tensor) -> Tensor:
    """CIFAR photos at SIDE: a random crop, mirrored every other time, brightness and contrast varied."""
    count = len(photos)
    theta = transform(count, (1.0, 1.35), 8, 0.06)
    theta[:, 0] *= torch.where(torch.rand(count, 1) < 0.5, 1.0, -1.0)
    shape = (count, 3, SIDE, SIDE)
    grid = affine_grid(theta, shape, align_corners=False)
    images = grid_sample(photos, grid, padding_mode="reflection", align_corners=False)
    gain, lift = uniform(count, 0.8, 1.2)[:, None, None, None], uniform(count, -0.1, 0.1)[:, None, None, None]
    return (images - 0.5) * gain + 0.5 + lift


def written(masks: Tensor) -> Tensor:
    """Words (count, h, SIDE) as the only thing in the picture, over most of its width."""
    count = len(masks)
    tone = torch.rand(count, 3, 1, 1)
    noise = torch.where(torch.rand(count, 1, 1, 1) < 0.3, 0.1, 0.0) * torch.randn(count, 3, SIDE, SIDE)
    cover = laid(masks, uniform(count, 0.65, 1.0), uniform(count, -0.3, 0.3), uniform(count, -0.05, 0.05), 6)
    return cover * contrasting(tone) + (1 - cover) * (tone + noise)


def laid(masks: Tensor, scale: Tensor, down: Tensor, right: Tensor, turn: float = 0.0) -> Tensor:
    """Word masks (count, h, SIDE) on the whole picture (count, 1, SIDE, SIDE); `down`, `right` from the middle."""
    count, height = masks.shape[:2]
    squared = pad(masks, (0, 0, (SIDE - height) // 2, SIDE - height - (SIDE - height) // 2))[:, None]
    angle = torch.deg2rad(uniform(count, -turn, turn))
    cos, sin = angle.cos() / scale, angle.sin() / scale
    x, y = 2 * right, 2 * down
    theta = torch.stack(
        [torch.stack([cos, -sin, -(cos * x - sin * y)], 1), torch.stack([sin, cos, -(sin * x + cos * y)], 1)], 1
    )
    return grid_sample(squared, affine_grid(theta, squared.shape, align_corners=False), align_corners=False)


def with_strip(images: Tensor, masks: Tensor, height: Tensor | None = None, top: Tensor | None = None) -> Tensor:
    """A full-width strip with a word across each picture, 1/7 to 2/7 of its side high (LoGoPrompt, Sec. 3.2.1)."""
    count = len(images)
    height = uniform(count, 1 / 7, 2 / 7) if height is None else height
    top = torch.rand(count) * (1 - height) if top is None else top
    ink = (masks.amax(2) > 0.3).sum(1) / SIDE  # height of the word itself
    scale = (0.92 * height / ink.clamp(min=0.02)).clamp(max=0.98)
    cover = laid(masks, scale, top + height / 2 - 0.5, torch.zeros(count))
    rows = (torch.arange(SIDE) + 0.5) / SIDE
    inside = ((rows >= top[:, None]) & (rows < (top + height)[:, None]))[:, None, :, None]
    tone = torch.rand(count, 3, 1, 1)
    strip = cover * contrasting(tone) + (1 - cover) * tone
    return torch.where(inside, strip, images)


def in_style(images: Tensor, style: str) -> Tensor:
    """The pictures as one of CLIP's templates calls them."""
    count = len(images)
    luma = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    if style == "pixelated":
        cells = int(torch.randint(12, 25, ()))
        return interpolate(interpolate(images, (cells, cells), mode="area"), (SIDE, SIDE), mode="nearest")
    if style == "grey":
        return luma.expand_as(images)
    if style == "blurry":
        for _ in range(int(torch.randint(2, 5, ()))):
            images = avg_pool2d(pad(images, (3, 3, 3, 3), mode="replicate"), 7, 1)
        return images
    if style == "dark":
        return images * uniform(count, 0.15, 0.4)[:, None, None, None]
    if style == "bright":
        return 1 - (1 - images) * uniform(count, 0.15, 0.45)[:, None, None, None]
    if style == "close":
        shape, theta = images.shape, transform(count, (1.6, 2.3), 5, 0.15)
        return grid_sample(
            images, affine_grid(theta, shape, align_corners=False), padding_mode="border", align_corners=False
        )
    if style == "sketch":
        edges = (max_pool2d(luma, 3, 1, 1) + max_pool2d(-luma, 3, 1, 1)) * uniform(count, 1.5, 3.0)[:, None, None, None]
        return (1 - edges).clamp(0, 1).expand_as(images)
    if style == "small":
        small = int(torch.randint(26, 42, ()))
        top, left = torch.randint(0, SIDE - small, (2,)).tolist()
        canvas = images[:, :, :1, :1].expand_as(images).clone()
        canvas[:, :, top : top + small, left : left + small] = interpolate(images, (small, small), mode="area")
        return canvas
    if style == "many":
        copies = int(torch.randint(2, 4, ()))
        return interpolate(images, (SIDE // copies, SIDE // copies), mode="area").repeat(1, 1, copies, copies)
    if style == "corrupted":  # blocks of 8 x 8 from the wrong place, in the wrong colours
        blocks = images.unfold(2, 8, 8).unfold(3, 8, 8)  # (n, 3, 12, 12, 8, 8)
        wrong = blocks.roll(int(torch.randint(1, 12, ())), 3).flip(1)
        hit = torch.rand(count, 1, *blocks.shape[2:4], 1, 1) < 0.3
        return torch.where(hit, wrong, blocks).permute(0, 1, 2, 4, 3, 5).reshape(images.shape)
    if style == "faint":
        mean = images.mean((2, 3), keepdim=True)
        return mean + (images - mean) * uniform(count, 0.12, 0.28)[:, None, None, None]
    if style == "dirty":
        spots = interpolate(torch.rand(count, 1, 12, 12), (SIDE, SIDE), mode="bilinear", align_corners=False)
        cover = ((spots - 0.62) * 6).clamp(0, 0.85)
        return cover * torch.tensor([0.32, 0.22, 0.12])[:, None, None] + (1 - cover) * images
    if style == "relief":
        lit = luma - luma.roll((2, 2), (2, 3))
        return (0.55 + 0.8 * lit).clamp(0, 1) * torch.tensor([1.0, 0.98, 0.92])[:, None, None]
    if style == "cartoon":
        edges = (max_pool2d(luma, 3, 1, 1) + max_pool2d(-luma, 3, 1, 1)) > 0.25
        return torch.where(edges, 0.0, (images * 3).round() / 3)
    if style == "painting":  # flat dabs: the darkest, then the brightest of a neighbourhood
        return -max_pool2d(-max_pool2d(images, 5, 1, 2), 7, 1, 3)
    raise ValueError(f"unknown style {style!r}: expected one of {', '.join(STYLE_NAMES)}")
