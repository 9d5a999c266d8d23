"""What `tiny` learns to see and to read: pictures with names, from public sources, as banks of small RGBA images.

Sources: symbol fonts (Symbola, Noto Sans Symbols, FreeFont, Unifont), Open Clip Art, drawn shapes, photos of CIFAR-10
and ImageNet's classes, and names rendered in text fonts; icon families are in `icon_sets`. Never DejaVu, whose
pictographs are the book's `icons`, nothing that `held_out` names, and no textiles. Names of symbols follow Unicode,
with the short English names of ALIASES.
"""

import re
import subprocess
import unicodedata
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tiny_clip.held_out import is_refused
from torch import Tensor

from vpkit.datasets.icons import ICONS

SIDE = 96  # of bank images
WORD_HEIGHT = 32

SYMBOL_FONTS = (
    "Symbola_hint.ttf", "NotoSansSymbols-Regular.ttf", "NotoSansSymbols-Bold.ttf", "NotoSansSymbols2-Regular.ttf",
    "FreeSans.ttf", "FreeSerif.ttf", "FreeMono.ttf", "FreeSansBold.ttf", "FreeSerifBold.ttf", "unifont.otf",
    "unifont_upper.otf",
)  # fmt: skip
SYMBOL_RANGES = ((0x2300, 0x23FF), (0x2600, 0x27BF), (0x1F0A0, 0x1F0FF), (0x1F300, 0x1F6FF), (0x1F900, 0x1F9FF))
HELD_OUT_FONTS = (
    "Carlito",
    "Cantarell",
    "Quicksand",
    "Lato-Regular",
    "LinLibertine_R.",
)  # never trained on, for reading

ALIASES = {  # Unicode's name: what people say
    "automobile": "car", "delivery truck": "truck", "dog face": "dog", "frog face": "frog", "horse face": "horse",
    "black chess king": "chess king", "hot springs": "hot spring", "sun with rays": "sun", "hot beverage": "cup",
    "coffee": "cup", "house building": "house", "first quarter moon": "moon", "crescent moon": "moon",
    "full moon": "moon",
    "eighth note": "music note", "beamed eighth notes": "music note", "musical note": "music note",
    "universal recycling symbol": "recycling symbol", "wheelchair symbol": "wheelchair", "game die": "die",
    "waving flag": "flag", "triangular flag on post": "flag", "atom symbol": "atom", "high voltage sign": "lightning",
    "funeral urn": "urn", "heart suit": "heart", "spade suit": "spade", "club suit": "club", "diamond suit": "diamond",
    "heavy heart": "heart", "gear without hub": "gear", "wheel of dharma": "wheel", "lower right pencil": "pencil",
    "upper right pencil": "pencil", "nib": "pen nib", "heavy check mark": "check mark", "alarm clock": "clock",
    "umbrella with rain drops": "umbrella", "snowman without snow": "snowman", "small airplane": "airplane",
    "wheelchair": "wheelchair", "telephone receiver": "telephone", "right pointing index": "pointing hand",
    "heavy snowflake": "snowflake", "tight trifoliate snowflake": "snowflake", "glowing star": "star",
    "medium star": "star", "white medium star": "star", "four leaf clover": "shamrock", "joker": "playing card",
    "playing card back": "playing card", "motorcycle": "motorbike",
}  # fmt: skip
COLOURS = {
    "red": (220, 30, 30), "green": (30, 160, 50), "blue": (30, 60, 210), "yellow": (240, 220, 40),
    "orange": (250, 140, 20), "purple": (130, 40, 170), "pink": (250, 150, 190), "brown": (120, 75, 40),
    "black": (15, 15, 15), "white": (245, 245, 245), "grey": (128, 128, 128),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "cross", "ring", "pentagon", "hexagon", "bar")


@dataclass
class Bank:
    """RGBA pictures (N, 4, SIDE, SIDE) uint8 with their concepts (N,)."""

    images: list = field(default_factory=list)
    labels: list = field(default_factory=list)

    def add(self, image: Image.Image, label: int) -> None:
        self.images.append(np.asarray(image.convert("RGBA")).transpose(2, 0, 1))
        self.labels.append(label)

    def tensors(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(np.stack(self.images)), torch.tensor(self.labels)


class Names:
    """Concept names in the order they were met."""

    def __init__(self):
        self.index: dict[str, int] = {}

    def id(self, name: str) -> int:
        return self.index.setdefault(name, len(self.index))


def said(character: str) -> str:
    """The plain English name of a symbol: the book's, an alias, or Unicode's without its typographic words."""
    if character in ICONS:
        return ICON_NAME[character]
    name = unicodedata.name(character, "").lower().replace("-", " ")
    if name in ALIASES:
        return ALIASES[name]
    name = re.sub(r"^(black|white|heavy|medium|negative|outlined|rotated|reversed|turned) ", "", name)
    name = re.sub(r" (symbol for|ornament)$", "", name)
    name = ALIASES.get(name, name)
    if name.endswith(" face") and len(name.split()) == 2 and name.split()[0] not in ("smiling", "frowning", "neutral"):
        name = name.removesuffix(" face")  # cat face, cow face: the animals
    return name


ICON_NAME = {character: name for name, character in ICONS.items()}


def centred(picture: Image.Image) -> Image.Image:
    """The ink of an RGBA picture, as large as fits a SIDE square."""
    box = picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    picture = picture.crop(box)
    scale = SIDE / max(picture.size)
    picture = picture.resize([max(1, round(s * scale)) for s in picture.size], Image.BICUBIC)
    canvas = Image.new("RGBA", (SIDE, SIDE))
    canvas.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return canvas


def find_font(name: str) -> Path | None:
    return next(iter(sorted(Path("/usr/share/fonts").rglob(name))), None)


def characters_of(path: Path) -> list[str]:
    from fontTools.ttLib import TTFont

    return [chr(code) for code in sorted(TTFont(path, lazy=True).getBestCmap())]


def symbol_bank(names: Names) -> tuple[Tensor, Tensor]:
    """One-colour symbols: the alpha channel is the drawing. A font's own 'missing' box is passed over."""
    bank = Bank()
    for file in SYMBOL_FONTS:
        path = find_font(file)
        if path is None:
            print(f"passed over: {file} is not installed")
            continue
        font = ImageFont.truetype(path, 100)
        for character in characters_of(path):
            name = said(character)
            official = unicodedata.name(character, "").lower().replace("-", " ")
            if not any(low <= ord(character) <= high for low, high in SYMBOL_RANGES) or not name:
                continue
            if character not in ICONS and (is_refused(name) or is_refused(official)):
                continue
            mask = Image.new("L", (220, 220))
            ImageDraw.Draw(mask).text((110, 110), character, fill=255, font=font, anchor="mm")
            if mask.getbbox():
                picture = Image.new("RGBA", mask.size)
                picture.putalpha(mask)
                bank.add(centred(picture), names.id(name))
    return bank.tensors()


def clipart_bank(names: Names, folder: Path = Path("/usr/share/openclipart/png")) -> tuple[Tensor, Tensor]:
    """Open Clip Art pictures whose file name holds the name of a concept as a word ('umbrella_01.png')."""
    bank = Bank()
    short = sorted((n for n in names.index if len(n) > 2 and n.islower()), key=len, reverse=True)
    pattern = re.compile(r"(?<![a-z])(" + "|".join(map(re.escape, short)) + r")s?(?![a-z])")
    for path in sorted(folder.rglob("*.png")):
        words = re.sub(r"[_\-.]+", " ", path.stem.lower())
        found = pattern.search(words)
        if found is None or is_refused(re.sub(r"\d+", " ", words)):
            continue
        try:
            picture = Image.open(path).convert("RGBA")
            picture.thumbnail((256, 256))
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
        if picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox():
            bank.add(centred(picture), names.id(found.group(1)))
    return bank.tensors()


def shape_bank(names: Names) -> tuple[Tensor, Tensor]:
    """Coloured shapes, 'red circle' and so on, drawn three times larger and reduced."""
    bank, big = Bank(), 3 * SIDE
    for colour, shape in product(COLOURS, SHAPES):
        picture = Image.new("RGBA", (big, big))
        draw, fill = ImageDraw.Draw(picture), COLOURS[colour]
        low, high, middle = 0.05 * big, 0.95 * big, big / 2
        if shape == "circle":
            draw.ellipse((low, low, high, high), fill=fill)
        elif shape == "ring":
            draw.ellipse((low, low, high, high), outline=fill, width=big // 7)
        elif shape == "cross":
            draw.rectangle((0.4 * big, low, 0.6 * big, high), fill=fill)
            draw.rectangle((low, 0.4 * big, high, 0.6 * big), fill=fill)
        elif shape == "bar":
            draw.rectangle((low, 0.38 * big, high, 0.62 * big), fill=fill)
        else:
            sides = {"triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6}[shape]
            draw.regular_polygon((middle, middle, 0.48 * big), sides, fill=fill)
        bank.add(centred(picture.reduce(3)), names.id(f"{colour} {shape}"))
    return bank.tensors()


def cifar_bank(names: Names, root: Path) -> tuple[Tensor, Tensor]:
    """CIFAR-10's training photos from `root/cifar10/train/<class>/*`, (N, 3, 32, 32); half the automobiles are cars."""
    images, labels = [], []
    for folder in sorted((root / "cifar10" / "train").iterdir()):
        called = {"automobile": ("automobile", "car")}.get(folder.name, (folder.name,))
        for number, path in enumerate(sorted(folder.iterdir())):
            images.append(np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1))
            labels.append(names.id(called[number % len(called)]))
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)


def imagenet_bank(names: Names, root: Path) -> tuple[Tensor, Tensor]:
    """One photo for each ImageNet class from `root/imagenet_samples/<wnid>_<name>.jpg`, (N, 3, SIDE, SIDE)."""
    images, labels = [], []
    for path in sorted((root / "imagenet_samples").glob("*.jpg")):
        name = path.stem.split("_", 1)[1].replace("_", " ").lower()
        if not is_refused(name):
            images.append(np.asarray(Image.open(path).convert("RGB").resize((SIDE, SIDE))).transpose(2, 0, 1))
            labels.append(names.id(name))
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)


def text_fonts() -> list[Path]:
    """Every installed font with Latin letters, but DejaVu's, symbols and other scripts."""
    listed = subprocess.run(["fc-list", ":lang=en", "file"], capture_output=True, text=True, check=True).stdout
    paths = sorted({Path(line.strip().rstrip(":")) for line in listed.splitlines() if line.strip()})
    refused = r"dejavu|symbol|emoji|unifont|math|music|ancient|dingbat|standardsymbols|d050000l|noto(sans|serif)[a-z]*-"
    kept = [p for p in paths if p.suffix in (".ttf", ".otf", ".t1") and not re.search(refused, p.name.lower())]
    plain = [p for p in paths if re.fullmatch(r"Noto(Sans|Serif)-(Regular|Bold|Italic)\.ttf", p.name)]
    return [*kept, *plain]


def word_bank(names: Names, words: list[str], fonts: list[Path]) -> tuple[Tensor, Tensor]:
    """Each word in each font as a mask (N, WORD_HEIGHT, SIDE), as large as fits; long names also on two lines."""
    masks, labels = [], []
    for path in fonts:
        try:
            font = ImageFont.truetype(path, 48)
            widths = {font.getlength(letter) for letter in "wil"}
        except OSError:
            continue
        if not widths or min(widths) == 0:
            continue
        for word in words:
            for text in dict.fromkeys((word, *([two_lines(word)] if " " in word else []))):
                for cased in dict.fromkeys((text, text.title()) if len(word) % 2 else (text, text.upper())):
                    mask = rendered(cased, font)
                    if mask is not None:
                        masks.append(mask)
                        labels.append(names.id(word))
    return torch.from_numpy(np.stack(masks)), torch.tensor(labels)


def two_lines(name: str) -> str:
    """Broken at the space nearest to the middle."""
    spaces = [i for i, letter in enumerate(name) if letter == " "]
    middle = min(spaces, key=lambda i: abs(i - len(name) / 2))
    return f"{name[:middle]}\n{name[middle + 1 :]}"


def rendered(text: str, font: ImageFont.FreeTypeFont) -> np.ndarray | None:
    image = Image.new("L", (1600, 260))
    ImageDraw.Draw(image).multiline_text((20, 20), text, fill=255, font=font, align="center", spacing=6)
    box = image.getbbox()
    if box is None:
        return None
    image = image.crop(box)
    scale = min(SIDE / image.width, WORD_HEIGHT / image.height)
    size = [max(1, round(s * scale)) for s in image.size]
    canvas = Image.new("L", (SIDE, WORD_HEIGHT))
    canvas.paste(image.resize(size, Image.BICUBIC), ((SIDE - size[0]) // 2, (WORD_HEIGHT - size[1]) // 2))
    return np.asarray(canvas)
