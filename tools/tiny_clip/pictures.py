"""Training pictures for `tiny`, composed in batches on the fly: a drawing on a background, a style, perhaps a name.

Everything is a torch operation over the whole batch, so that a CPU makes pictures faster than it can learn from them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate, max_pool2d, pad

KINDS = {  # share of each kind of picture; the first ones are drawings
    "icon": 0.26, "colour": 0.06, "symbol": 0.05, "clipart": 0.04, "shape": 0.01, "photo": 0.31, "scene": 0.05,
    "word": 0.22,
}  # fmt: skip
EASY_KINDS = {  # at the start of training
    "icon": 0.22, "colour": 0.06, "symbol": 0.04, "clipart": 0.02, "shape": 0.01, "photo": 0.20, "scene": 0.03,
    "word": 0.42,
}  # fmt: skip
PHOTOS = ("photo", "scene")
WORD = list(KINDS).index("word")
MASK = 12  # side of the drawing's own silhouette, which the features must hold

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
    """Drawings by kind (N, 1 or 4, side, side), photos by kind (N, 3, s, s), words (N, h, side); each with labels (N,).

    The label is a concept; that of a word its place in a longer list of spellings, which begins with the concepts.
    """

    drawings: dict[str, tuple[Tensor, Tensor]]
    photos: dict[str, tuple[Tensor, Tensor]]
    words: tuple[Tensor, Tensor]
    weight: Tensor  # (C,) how often a concept is drawn, relative to others of its kind

    def __post_init__(self):
        self.chances = {}
        for kind, (_, labels) in (*self.drawings.items(), *self.photos.items(), ("word", self.words)):
            count = torch.bincount(labels, minlength=len(self.weight))
            weight = torch.ones(len(count))
            weight[: len(self.weight)] = self.weight
            self.chances[kind] = (weight / count.clamp(min=1))[labels]

    @property
    def side(self) -> int:
        return self.words[0].shape[2]

    def resized(self, side: int) -> "Banks":
        """The same pictures, smaller: training starts with these."""
        ratio = side / self.side
        drawings = {kind: (_reduced(images, ratio), labels) for kind, (images, labels) in self.drawings.items()}
        words = _reduced(self.words[0][:, None], ratio)[:, 0]
        return Banks(drawings, self.photos, (words, self.words[1]), self.weight)

    def draw(self, kind: str, count: int, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        images, labels = {"word": self.words, **self.photos, **self.drawings}[kind]
        chances = self.chances[kind] if allowed is None else self.chances[kind] * allowed[labels]
        chosen = torch.multinomial(chances, count, replacement=True)
        images, labels = images[chosen].float() / 255, labels[chosen]
        if kind in self.drawings and images.shape[1] == 1:  # one colour: the mask alone
            images = torch.cat([torch.zeros_like(images).expand(-1, 3, -1, -1), images], 1)
        return images, labels

    def word_of(self, concepts: Tensor) -> Tensor:
        """For each concept the position of its word in a random font; -1 if it is not on the reading list."""
        labels = self.words[1]
        order = torch.randperm(len(labels))
        position = torch.full((max(len(self.weight), int(labels.max()) + 1),), -1)
        position[labels[order]] = order
        return position[concepts]


def _reduced(images: Tensor, ratio: float) -> Tensor:
    size = [round(ratio * side) for side in images.shape[2:]]
    return torch.cat([interpolate(part.float(), size, mode="area").round().byte() for part in images.split(2000)])


@dataclass
class Composed:
    """Pictures (N, 3, side, side), their two concepts (N, 2) (equal if there is one), their style (N,).

    `kinds` (N,) is the place in KINDS, `worded` (N,) says which show a word, the second concept (its place among the
    spellings); `masks` (N, MASK, MASK) holds the silhouettes of
    drawings before they were moved and painted, -1 where there is no drawing.
    """

    images: Tensor
    concepts: Tensor
    kinds: Tensor
    styles: Tensor
    worded: Tensor
    masks: Tensor


def compose(banks: Banks, count: int, hardness: float = 1.0, easy_words: Tensor | None = None) -> Composed:
    """`count` pictures.

    Args:
        hardness: 0 for upright drawings on plain ground in no style and many words, 1 for all there is.
        easy_words: (W,) bool, the only words shown; None for all.
    """
    side, styled, strips = banks.side, 0.45 * hardness, 0.25 * hardness
    shares = {kind: easy + hardness * (KINDS[kind] - easy) for kind, easy in EASY_KINDS.items()}
    kinds = torch.multinomial(torch.tensor([shares[kind] for kind in KINDS]), count, replacement=True)
    images, concepts = torch.empty(count, 3, side, side), torch.empty(count, 2, dtype=torch.int64)
    masks = torch.full((count, MASK, MASK), -1.0)
    for k, kind in enumerate(KINDS):
        rows = torch.where(kinds == k)[0]
        if len(rows) == 0:
            continue
        drawn, labels = banks.draw(kind, len(rows), easy_words if kind == "word" else None)
        if kind in PHOTOS:
            images[rows] = photographed(drawn, side)
        elif kind == "word":
            images[rows] = written(drawn)
        else:
            images[rows] = painted(drawn, banks, kind in ("icon", "symbol"), hardness)
            masks[rows] = interpolate(drawn[:, 3:], (MASK, MASK), mode="area")[:, 0]
        concepts[rows] = labels[:, None]
    worded = kinds == WORD
    styles = torch.where((torch.rand(count) < styled) & ~worded, torch.randint(1, len(STYLES), (count,)), 0)
    for style in range(1, len(STYLES)):
        rows = torch.where(styles == style)[0]
        if len(rows):
            images[rows] = in_style(images[rows], STYLE_NAMES[style])
    rows = torch.where((torch.rand(count) < strips / (1 - styled)) & ~worded & (styles == 0))[0]
    if len(rows):
        named, labels = banks.draw("word", len(rows), easy_words)
        own = banks.word_of(concepts[rows, 0])
        mine = (own >= 0) & (torch.rand(len(rows)) < 0.5)
        named[mine], labels[mine] = banks.words[0][own[mine]].float() / 255, concepts[rows, 0][mine]
        images[rows], concepts[rows, 1] = with_strip(images[rows], named), labels
        worded[rows] = True
    return Composed(images.clamp_(0, 1), concepts, kinds, styles, worded, masks)


def placed(images: Tensor, scale: Tensor, turn: float, right: Tensor, down: Tensor, **sampling) -> Tensor:
    """Images (count, c, h, w) scaled, turned by up to `turn` degrees, moved by shares of a side."""
    angle = torch.deg2rad(uniform(len(images), -turn, turn))
    cos, sin, x, y = angle.cos() / scale, angle.sin() / scale, 2 * right, 2 * down
    theta = torch.stack([cos, -sin, sin * y - cos * x, sin, cos, -(sin * x + cos * y)], 1).view(-1, 2, 3)
    return grid_sample(images, affine_grid(theta, images.shape, align_corners=False), align_corners=False, **sampling)


def moved(images: Tensor, scale: tuple[float, float], turn: float, shift: float, **sampling) -> Tensor:
    """`placed` at random: a scale of the range, up to `turn` degrees, up to `shift` of a side."""
    right, down = uniform(2 * len(images), -shift, shift).view(2, -1)
    return placed(images, uniform(len(images), *scale), turn, right, down, **sampling)


def uniform(count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count)


def painted(drawn: Tensor, banks: Banks, symbol: bool, hardness: float) -> Tensor:
    """RGBA drawings on backgrounds: as they are, as silhouette, outline or in two tones."""
    count = len(drawn)
    drawn = moved(drawn, (0.75 - 0.3 * hardness, 1.0), 6 + 16 * hardness, 0.05 + 0.07 * hardness)
    alpha, colour = drawn[:, 3:], drawn[:, :3]
    background, tone = backgrounds(count, banks, hardness)
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


def backgrounds(count: int, banks: Banks, hardness: float) -> tuple[Tensor, Tensor]:
    """Plain, graded, striped, speckled or photographic; and their mean colour (count, 3, 1, 1)."""
    side = banks.side
    base, other = torch.rand(2, count, 3, 1, 1)
    ramp = torch.linspace(0, 1, side)
    angle = uniform(count, 0, 2 * math.pi)[:, None, None]
    along = (ramp[None, :, None] * angle.sin() + ramp[None, None, :] * angle.cos())[:, None]
    kind = torch.rand(count, 1, 1, 1) * (0.5 + 0.5 * hardness)
    graded = base + (other - base) * 0.5 * along.abs()
    period = uniform(count, 0.06, 0.3)[:, None, None, None]
    striped = base + 0.15 * torch.sin(2 * math.pi * along / period)
    speckled = base + 0.12 * torch.randn(count, 3, side, side)
    photos, _ = banks.draw("photo", count)
    photos = interpolate(photos, (side, side), mode="bilinear", align_corners=False)
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


def photographed(photos: Tensor, side: int) -> Tensor:
    """Photos at `side`: a random crop, mirrored every other time, brightness and contrast varied."""
    count = len(photos)
    mirrored = torch.where(torch.rand(count, 1, 1, 1) < 0.5, photos, photos.flip(3))
    large = interpolate(mirrored, (side, side), mode="bilinear", align_corners=False)
    images = moved(large, (1.0, 1.35), 8, 0.06, padding_mode="reflection")
    gain, lift = uniform(count, 0.8, 1.2)[:, None, None, None], uniform(count, -0.1, 0.1)[:, None, None, None]
    return (images - 0.5) * gain + 0.5 + lift


def written(masks: Tensor) -> Tensor:
    """Words (count, h, side) as the only thing in the picture, over most of its width."""
    count, _, side = masks.shape
    tone = torch.rand(count, 3, 1, 1)
    noise = torch.where(torch.rand(count, 1, 1, 1) < 0.3, 0.1, 0.0) * torch.randn(count, 3, side, side)
    cover = laid(masks, uniform(count, 0.65, 1.0), uniform(count, -0.3, 0.3), uniform(count, -0.05, 0.05), 6)
    return cover * contrasting(tone) + (1 - cover) * (tone + noise)


def laid(masks: Tensor, scale: Tensor, down: Tensor, right: Tensor, turn: float = 0.0) -> Tensor:
    """Word masks (count, h, side) on the whole picture (count, 1, side, side); `down`, `right` from the middle."""
    _, height, side = masks.shape
    above = (side - height) // 2
    return placed(pad(masks, (0, 0, above, side - height - above))[:, None], scale, turn, right, down)


def with_strip(images: Tensor, masks: Tensor, height: Tensor | None = None, top: Tensor | None = None) -> Tensor:
    """A full-width strip with a word across each picture, 1/7 to 2/7 of its side high (LoGoPrompt, Sec. 3.2.1)."""
    count, side = len(images), images.shape[3]
    height = uniform(count, 1 / 7, 2 / 7) if height is None else height
    top = torch.rand(count) * (1 - height) if top is None else top
    ink = (masks.amax(2) > 0.3).sum(1) / side  # height of the word itself
    scale = (0.92 * height / ink.clamp(min=0.02)).clamp(max=0.98)
    cover = laid(masks, scale, top + height / 2 - 0.5, torch.zeros(count))
    rows = (torch.arange(side) + 0.5) / side
    inside = ((rows >= top[:, None]) & (rows < (top + height)[:, None]))[:, None, :, None]
    tone = torch.rand(count, 3, 1, 1)
    strip = cover * contrasting(tone) + (1 - cover) * tone
    return torch.where(inside, strip, images)


def in_style(images: Tensor, style: str) -> Tensor:
    """The pictures as one of CLIP's templates calls them."""
    count, side = len(images), images.shape[3]
    luma = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    if style == "pixelated":
        cells = int(torch.randint(12, 25, ()))
        return interpolate(interpolate(images, (cells, cells), mode="area"), (side, side), mode="nearest")
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
        return moved(images, (1.6, 2.3), 5, 0.15, padding_mode="border")
    if style == "sketch":
        edges = (max_pool2d(luma, 3, 1, 1) + max_pool2d(-luma, 3, 1, 1)) * uniform(count, 1.5, 3.0)[:, None, None, None]
        return (1 - edges).clamp(0, 1).expand_as(images)
    if style == "small":
        small = int(side * uniform(1, 0.27, 0.44))
        top, left = torch.randint(0, side - small, (2,)).tolist()
        canvas = images[:, :, :1, :1].expand_as(images).clone()
        canvas[:, :, top : top + small, left : left + small] = interpolate(images, (small, small), mode="area")
        return canvas
    if style == "many":
        copies = int(torch.randint(2, 4, ()))
        one = -(-side // copies)
        return interpolate(images, (one, one), mode="area").repeat(1, 1, copies, copies)[:, :, :side, :side]
    if style == "corrupted":  # blocks of 8 x 8 from the wrong place, in the wrong colours
        blocks = images.unfold(2, 8, 8).unfold(3, 8, 8)  # (n, 3, side / 8, side / 8, 8, 8)
        wrong = blocks.roll(int(torch.randint(1, side // 8, ())), 3).flip(1)
        hit = torch.rand(count, 1, *blocks.shape[2:4], 1, 1) < 0.3
        return torch.where(hit, wrong, blocks).permute(0, 1, 2, 4, 3, 5).reshape(images.shape)
    if style == "faint":
        mean = images.mean((2, 3), keepdim=True)
        return mean + (images - mean) * uniform(count, 0.12, 0.28)[:, None, None, None]
    if style == "dirty":
        spots = interpolate(torch.rand(count, 1, 12, 12), (side, side), mode="bilinear", align_corners=False)
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
