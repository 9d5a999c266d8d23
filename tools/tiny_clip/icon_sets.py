"""Icon families as pictures with names: the npm package @iconify/json, some hundred designers under free licences.

    npm pack @iconify/json && tar xf iconify-json-*.tgz     # the folder `package` is what --icons asks for

Left out: Phosphor and Remix, on which `pictograms` tests; logos, flags of countries, file types of programs; licences
other than LICENCES. A picture is named by its file name without the words for a variant ("outline", "24", "duotone"),
if what is left is a noun of WordNet, an emoji's name, or stands in `pictograms` for one of its classes.
"""

import io
import json
import re
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny_clip.concepts import ALIASES, SIDE, Names, centred
from tiny_clip.held_out import copies, is_refused
from torch import Tensor

from vpkit.datasets.icons import ICONS
from vpkit.datasets.pictograms import pictogram_table

LICENCES = {
    "Apache-2.0",
    "MIT",
    "ISC",
    "CC0-1.0",
    "CC-BY-4.0",
    "CC-BY-3.0",
    "OFL-1.1",
    "BSD-3-Clause",
    "Unlicense",
}
UNWANTED_KINDS = ("Logos", "Programming")
UNWANTED_SETS = ("ph", "ri", "svg-spinners", "token", "token-branded", "file-icons", "dinkie-icons")
VARIANTS = set(
    "outline outlined filled fill line linear bold thin light duotone twotone two tone rounded round sharp solid "
    "regular broken alt variant o f s ios md android baseline ic color colored colour stroke stroked contained default "
    "new simple glyph small large xs sm lg xl v1 v2 left right up down side front emoji medium dark skin".split()
)
MODIFIERS = set(
    "off slash disabled remix plus minus add remove x cancel cross check checked edit alert question exclamation "
    "circle square rectangle arrow arrows lock locked unlock refresh sync clock time settings setting cog".split()
)
OTHER_NAMES = {  # what icon families and emoji call the book's classes
    "mouse": "computer mouse", "cog": "gear", "settings": "gear", "setting": "gear", "home": "house",
    "plane": "airplane", "aeroplane": "airplane", "flight": "airplane", "bolt": "lightning", "flash": "lightning",
    "thunder": "lightning", "mail": "envelope", "email": "envelope", "letter": "envelope", "phone": "telephone",
    "call": "telephone", "recycle": "recycling symbol", "recycling": "recycling symbol", "balance": "scales",
    "scale": "scales", "balance scale": "scales", "justice": "scales", "peace": "peace symbol",
    "radioactive": "radioactive sign", "radiation": "radioactive sign", "biohazard": "biohazard sign",
    "warning": "warning sign", "music": "music note", "musical note": "music note", "note music": "music note",
    "dice": "die", "snow": "snowflake", "pen": "pen nib", "pen tool": "pen nib", "fountain pen": "pen nib",
    "check": "check mark", "checkmark": "check mark", "tick": "check mark", "sword cross": "crossed swords",
    "swords": "crossed swords", "smile": "smiling face", "smiley": "smiling face", "happy": "smiling face",
    "sad": "frowning face", "frown": "frowning face", "pointing": "pointing hand", "hand pointing": "pointing hand",
    "clover": "shamrock", "skull crossbones": "skull and crossbones", "coffee": "cup", "tea": "cup",
    "spades": "spade", "hearts": "heart", "clubs": "club", "diamonds": "diamond", "yin yang symbol": "yin yang",
    "fleur de lis": "fleur-de-lis", "save": "floppy disk", "link": "chain", "filter": "funnel", "file": "document",
    "tag": "price tag", "user": "person", "image": "picture", "photo": "picture", "send": "paper plane",
    "trash": "trash can", "bin": "trash can", "delete": "trash can", "garbage": "trash can", "pin": "pushpin",
    "thumbtack": "pushpin", "location": "place marker", "map pin": "place marker", "marker": "place marker",
    "location pin": "place marker", "map marker": "place marker", "mobile": "mobile phone",
    "cellphone": "mobile phone", "smartphone": "mobile phone", "chat": "speech bubble", "message": "speech bubble",
    "comment": "speech bubble", "speech balloon": "speech bubble", "store": "shop", "storefront": "shop",
    "building": "office building", "buildings": "office building", "desktop": "monitor", "display": "monitor",
    "desktop computer": "monitor", "restaurant": "cutlery", "fork and knife": "cutlery", "utensils": "cutlery",
    "fork knife": "cutlery", "silverware": "cutlery", "bug": "beetle", "ladybug": "beetle", "lady beetle": "beetle",
    "film": "film strip", "film frames": "film strip", "beaker": "flask", "earth": "globe", "world": "globe",
    "globe showing americas": "globe", "globe showing europe africa": "globe", "globe with meridians": "globe",
    "wand": "magic wand", "mask": "surgical mask", "face mask": "surgical mask",
    "face with medical mask": "surgical mask", "thumb up": "thumbs up", "like": "thumbs up", "storm": "thunderstorm",
    "cloud with lightning": "thunderstorm", "cloud lightning": "thunderstorm", "cloud rain": "rain", "rainy": "rain",
    "cloud with rain": "rain", "weather rainy": "rain", "windy": "wind", "wind face": "wind", "mist": "fog",
    "foggy": "fog", "cloud fog": "fog", "disc": "compact disc", "cd": "compact disc", "optical disk": "compact disc",
    "vinyl": "compact disc", "album": "compact disc", "brush": "paintbrush", "bucket": "paint bucket",
    "vial": "test tube", "first aid": "first aid kit", "medkit": "first aid kit", "sim": "SIM card",
    "sim card": "SIM card", "dropper": "eyedropper", "color picker": "eyedropper", "pipette": "eyedropper",
    "archive": "archive box", "box archive": "archive box", "card file box": "archive box",
    "payment card": "credit card", "chart bar": "bar chart", "notification": "bell", "alarm bell": "bell",
    "time": "clock", "watch later": "clock", "flame": "fire", "present": "gift", "wrapped gift": "gift",
    "note": "sticky note", "motorcycle": "motorbike", "automobile": "car", "lorry": "truck",
    "delivery truck": "truck", "boat": "ship", "open book": "book", "closed book": "book", "soccer ball": "football",
    "full moon": "moon", "crescent moon": "moon", "sunny": "sun", "spiral calendar": "calendar",
    "tear off calendar": "calendar", "wheelchair symbol": "wheelchair", "cow face": "cow", "cat face": "cat",
    "monkey face": "monkey", "mouse face": "mouse", "dog face": "dog", "horse face": "horse", "pencil alt": "pencil",
    "edit": "pencil", "accessibility": "wheelchair",
}  # fmt: skip
EMOJI_SETS = ("openmoji", "twemoji", "noto", "noto-v1", "fluent-emoji", "emojione", "fxemoji", "streamline-emojis")


def words_of(file_name: str) -> str:
    """An icon's name without the words for a variant: "bell-ringing-24-filled" is "bell ringing"."""
    words = [w for w in file_name.lower().split("-") if w and not re.fullmatch(r"\d+[a-z]*", w)]
    while len(words) > 1 and words[-1] in VARIANTS:
        words.pop()
    while len(words) > 1 and words[0] in ("ios", "md", "baseline", "ic", "outline", "round", "sharp", "twotone"):
        words.pop(0)
    return " ".join(words)


def wordnet_nouns() -> set[str]:
    """WordNet's nouns in lower case, from Debian's `wordnet-base`."""
    lines = Path("/usr/share/wordnet/index.noun").read_text().splitlines()
    return {line.split(" ", 1)[0].replace("_", " ") for line in lines if line and line[0] != " "}


def class_names_by_icon() -> dict[str, str]:
    """What the families of `pictograms` call its classes; those of two classes are left out."""
    found: dict[str, set[str]] = {}
    for name, designs in pictogram_table().items():
        for icons in designs.values():
            for icon in icons:
                found.setdefault(words_of(icon.removeprefix("regular/")), set()).add(name)
    return {words: next(iter(classes)) for words, classes in found.items() if len(classes) == 1}


class Naming:
    """From an icon's file name to a concept, or None if it is none or may not be shown."""

    def __init__(self, folder: Path):
        self.nouns = wordnet_nouns()
        self.own = {name.lower(): name for name in (*ICONS, *pictogram_table())}
        self.ours = {**class_names_by_icon(), **OTHER_NAMES}
        emoji = json.loads((folder / "json/noto.json").read_text())["icons"]
        self.emoji = {words_of(name) for name in emoji if "skin" not in name}

    def __call__(self, family: str, file_name: str) -> str | None:
        words = words_of(file_name)
        if is_refused(words) or "skin-tone" in file_name or set(words.split()[1:]) & MODIFIERS or len(words) < 3:
            return None
        if family.startswith(EMOJI_SETS):
            if words == "mouse":
                return "mouse"
            words = ALIASES.get(words, words)
        name = self.own.get(words) if words not in self.ours else self.ours[words]
        name = name or (words if words in self.nouns or words in self.emoji else None)
        return None if name is None or is_refused(name) else name


def render(body: str, width: float, height: float, left: float, top: float) -> Image.Image | None:
    """An icon of about 144 px, as large as fits a SIDE square; None if nothing is drawn."""
    import resvg_py

    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}" '
        f'height="{height}" viewBox="{left} {top} {width} {height}" color="#000">{body}</svg>'
    )
    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, width=144, skip_system_fonts=True)
        picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    except (ValueError, OSError):
        return None
    return centred(picture) if picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox() else None


def family_pictures(folder: Path, naming: Naming, at_most: int, family: str) -> tuple[list[str], np.ndarray, bool]:
    """Names, pictures (N, 1 or 4, SIDE, SIDE) and whether they are coloured; `at_most` variants of a name."""
    kept = json.loads((folder / f"json/{family}.json").read_text())
    coloured = json.loads((folder / "collections.json").read_text())[family].get("palette", False)
    side, names, pictures, count = (kept.get("width", 16), kept.get("height", 16)), [], [], {}
    for file_name, icon in kept["icons"].items():
        name = naming(family, file_name)
        if name is None or icon.get("hidden") or count.get(name, 0) >= at_most:
            continue
        box = (icon.get("width", side[0]), icon.get("height", side[1]), icon.get("left", 0), icon.get("top", 0))
        picture = render(icon["body"], *box)
        if picture is not None:
            count[name] = count.get(name, 0) + 1
            names.append(name)
            array = np.asarray(picture).transpose(2, 0, 1)
            pictures.append(array if coloured else array[3:])
    channels = 4 if coloured else 1
    stacked = np.stack(pictures) if pictures else np.empty((0, channels, SIDE, SIDE), np.uint8)
    return names, stacked, coloured


def icon_banks(names: Names, folder: Path, at_most: int = 3) -> dict[str, tuple[Tensor, Tensor]]:
    """The banks "icon" (N, 1, SIDE, SIDE) and "colour" (N, 4, SIDE, SIDE) with their concepts."""
    described = json.loads((folder / "collections.json").read_text())
    families = [
        family
        for family, about in described.items()
        if about["license"].get("spdx") in LICENCES
        and about.get("category") not in UNWANTED_KINDS
        and family not in UNWANTED_SETS
        and "flag" not in family
    ]
    parts: dict[bool, list] = {False: [], True: []}
    with ProcessPoolExecutor(2) as pool:
        work = partial(family_pictures, folder, Naming(folder), at_most)
        for found, pictures, coloured in pool.map(work, families):
            if found:
                images = torch.from_numpy(pictures)
                # A drawing in colours is no copy of a glyph in one.
                fresh = torch.ones(len(images), dtype=torch.bool) if coloured else ~copies(images[:, -1])
                labels = torch.tensor([names.id(name) for name in found])
                parts[coloured].append((images[fresh], labels[fresh]))
    print(f"{len(families)} icon families, {len(names.index)} names", flush=True)
    return {
        kind: tuple(torch.cat(part) for part in zip(*parts[coloured], strict=True))
        for kind, coloured in (("icon", False), ("colour", True))
    }
