"""What `tiny` must never see: forty concepts of `pictograms`, every design of its test split, all digits.

Of the forty only the words are met, in text. Their zero-shot accuracy is a row of its own in the model card.
"""

import re
from functools import cache

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vpkit.datasets.pictograms import FAMILIES, TEST_FAMILIES, glyph, pictogram_table

# The concept, then words that stand in no name of a picture shown in training. Whole words, with or without an s.
HELD_OUT = {
    "bank": "bank courthouse government landmark museum parthenon institution",
    "barcode": "barcode scanner upc",
    "bed": "bed hotel motel sleeping cot hostel bedroom",
    "bicycle": "bicycle bike biking biker cycling cyclist bicyclist cycle tandem unicycle mountainbike pedelec",
    "bus": "bus trolleybus minibus schoolbus omnibus coach shuttle transit",
    "cake": "cake birthday cupcake shortcake moon-cake pastry fishcake",
    "calculator": "calculator calculate calc abacus",
    "compass": "compass safari navigator",
    "crown": "crown king queen prince princess royal royalty vip tiara coronet monarchy",
    "door": "door doorway gate entrance exit entry doorbell doorknob",
    "eraser": "eraser erase rubber",
    "floppy disk": "floppy diskette save saved disk",
    "game controller": "gamepad controller joystick playstation xbox nintendo game gaming joypad joycon",
    "gas pump": "gas fuel petrol gasoline pump diesel station refuel",
    "ghost": "ghost phantom boo spirit haunted spectre pacman",
    "headphones": "headphone headset earphone earbud airpods headphones",
    "key": "key keyhole password passkey credential",
    "leaf": "leaf leaves leafy eco maple foliage frond",
    "life buoy": "lifebuoy lifesaver buoy life-ring lifering support",
    "light bulb": "lightbulb bulb idea lamp tips",
    "magnifying glass": "magnify magnifying magnifier search zoom find loupe lens explore inspect",
    "medal": "medal award rosette medallion badge premium ribbon achievement",
    "microphone": "microphone mic mike podcast recorder karaoke voice voicemail dictation",
    "newspaper": "newspaper news newsletter press article gazette",
    "palette": "palette palet colour-palette theme swatch",
    "pill": "pill capsule tablets medication medicine drug pharmacy vitamin",
    "printer": "printer print printing fax photocopier",
    "QR code": "qr qrcode barcode",
    "robot": "robot bot android chatbot robotic automaton cyborg droid",
    "rocket": "rocket spaceship spacecraft shuttle launch missile startup firework sparkler",
    "ruler": "ruler measure measurement tape yardstick measuring",
    "shield": "shield security secure protection protect defense defence guard antivirus privacy shielded safety "
    "insurance",
    "shirt": "shirt tshirt clothes clothing tee apparel jersey t-shirt polo blouse laundry",
    "shopping cart": "cart shopping trolley basket checkout buy purchase ecommerce",
    "suitcase": "suitcase luggage baggage travel trunk valise briefcase-travel",
    "television": "television tv televisions screen-tv",
    "thermometer": "thermometer temperature fever thermostat",
    "train": "train railway rail subway metro tram tramway locomotive underground monorail bullettrain railroad",
    "trophy": "trophy champion winner tournament win cup-trophy award prize",
    "wallet": "wallet purse billfold payment",
}
_WORDS = {word.replace("-", " ") for words in HELD_OUT.values() for word in words.split()} | {"light bulb", "life ring"}
_REFUSED = re.compile(r"\b(" + "|".join(sorted(map(re.escape, _WORDS))) + r")(s|es)?\b")
_DIGITS = re.compile(r"\d|\b(zero|one|two|three|four|five|six|seven|eight|nine|ten|digit|number|numeric|keycap)s?\b")
_CHESS = re.compile(r"\bchess (king|queen)\b")  # pieces, which `icons` asks for


def is_refused(name: str) -> bool:
    """Whether a picture of this name (words with spaces) may not be shown."""
    name = name.lower()
    return bool(_REFUSED.search(_CHESS.sub("", name)) or _DIGITS.search(name))


def cut_out(picture: Image.Image, side: int = 64) -> Tensor:
    """(side * side,) bool: where the ink of a mask is, cut out and scaled to a square."""
    box = picture.point(lambda a: 255 * (a > 8)).getbbox()
    if box is None:
        return torch.zeros(side * side, dtype=torch.bool)
    square = picture.crop(box).resize((side, side), Image.BILINEAR)
    return torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8) > 127


@cache
def kept_designs() -> tuple[Tensor, Tensor]:
    """Ink (M, 64 * 64) of every design that stays unseen, and (M,) the share of ink at which a picture is a copy.

    The designs of the test families, of which a copy shares 0.9; all designs of the forty concepts, 0.8; solid ones
    0.96, for two blobs of ink are alike whatever they stand for.
    """
    inks, limits = [], []
    for concept, designs in pictogram_table().items():
        for family in FAMILIES:
            if family not in TEST_FAMILIES and concept not in HELD_OUT:
                continue
            for icon in designs.get(family, ()):
                path, character = glyph(family, icon)
                mask = Image.new("L", (220, 220))
                font = ImageFont.truetype(path, 100)
                ImageDraw.Draw(mask).text((110, 110), character, fill=255, font=font, anchor="mm")
                inks.append(cut_out(mask))
                solid = inks[-1].float().mean() > 0.55
                limits.append(0.96 if solid else 0.8 if concept in HELD_OUT else 0.9)
    return torch.stack(inks).float(), torch.tensor(limits)


def copies(alphas: Tensor) -> Tensor:
    """(N,) bool: which pictures (N, side, side) uint8 share too much ink (intersection over union) with a kept one."""
    kept, limits = kept_designs()
    found = []
    for part in alphas.split(1024):
        ink = torch.stack([cut_out(Image.fromarray(alpha.numpy())) for alpha in part]).float()
        both = ink @ kept.T
        either = ink.sum(1, keepdim=True) + kept.sum(1) - both
        found.append((both / either.clamp(min=1) >= limits).any(1))
    return torch.cat(found)
