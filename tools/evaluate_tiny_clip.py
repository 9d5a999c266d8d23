"""What the small CLIP models can do, measured on material they were not trained on.

    python tools/evaluate_tiny_clip.py [--data DIR] [--json OUT]

DIR holds cifar10/test/<class>/*; without it CIFAR-10 is left out. Reading is tested in fonts kept from training.
"""

import argparse
import json
from pathlib import Path

import torch
from PIL import ImageFont
from tiny_clip import pictures
from tiny_clip.concepts import HELD_OUT_FONTS, text_fonts, word_bank

import vpkit
from vpkit.datasets.icons import ICON_NAMES

TEMPLATE = "This is a photo of a {}."


@torch.no_grad()
def top1(clip, images: vpkit.ImageSet, template: str = TEMPLATE) -> dict:
    model = clip.zero_shot(vpkit.fill_templates(template, images.class_names))
    hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in images.batches(64))
    return {"accuracy": hits / len(images), "n": len(images)}


class NamesFromIcons(dict):
    """`word_bank` asks for ids; here the position among the icon names."""

    def id(self, name: str) -> int:
        return ICON_NAMES.index(name)


@torch.no_grad()
def reading(clip) -> dict:
    """A class name alone in the picture, in held-out fonts: the right one of all icon names."""
    fonts = [path for path in text_fonts() if path.name.startswith(HELD_OUT_FONTS)]
    fonts = [path for path in fonts if ImageFont.truetype(path, 20).getlength("w") > 0]
    masks, labels = word_bank(NamesFromIcons(), list(ICON_NAMES), fonts)
    torch.manual_seed(0)
    text = clip.encode_text(vpkit.fill_templates(TEMPLATE, ICON_NAMES))
    hits = 0
    for part, wanted in zip(masks.split(64), labels.split(64), strict=True):
        images = pictures.written(part.float() / 255).clamp(0, 1)
        hits += int(((clip.encode_image(images) @ text.T).argmax(1) == wanted).sum())
    return {"accuracy": hits / len(labels), "n": len(labels), "fonts": len(fonts)}


@torch.no_grad()
def pasting(clip, images: vpkit.ImageSet) -> dict:
    """How often a strip with the true name raises its score, by height of the strip; and a wrong name."""
    fonts = [path for path in text_fonts() if path.name.startswith("Carlito-Regular")]
    masks, labels = word_bank(NamesFromIcons(), list(images.class_names), fonts)
    first = {int(label): i for i, label in reversed(list(enumerate(labels.tolist())))}
    text = clip.encode_text(vpkit.fill_templates(TEMPLATE, images.class_names))
    found = {}
    for name, ratio in (("1/14", 1 / 14), ("1/7", 1 / 7), ("2/7", 2 / 7)):
        torch.manual_seed(0)
        raised = correct = 0
        for x, y in images.batches(64):
            strips = masks[[first[int(label)] for label in y]].float() / 255
            height = torch.full((len(y),), ratio)
            pasted = pictures.with_strip(x, strips, height, torch.rand(len(y)) * (1 - ratio))
            before, after = (clip.encode_image(z) @ text.T for z in (x, pasted))
            rows = torch.arange(len(y))
            raised += int((after[rows, y] > before[rows, y]).sum())
            correct += int((after.argmax(1) == y).sum())
        found[name] = {"raised": raised / len(images), "accuracy": correct / len(images), "n": len(images)}
    return found


@torch.no_grad()
def styles(clip, images: vpkit.ImageSet) -> dict:
    """The template that names the applied style, first among those of 12 styles, the class name being the true one."""
    wanted = {
        "pixelated": "a pixelated photo of a {}.", "grey": "a black and white photo of a {}.",
        "blurry": "a blurry photo of a {}.", "dark": "a dark photo of a {}.", "bright": "a bright photo of a {}.",
        "close": "a close-up photo of a {}.", "sketch": "a sketch of a {}.", "small": "a photo of the small {}.",
        "many": "a photo of many {}.", "corrupted": "a jpeg corrupted photo of a {}.",
        "faint": "a photo of a hard to see {}.", "dirty": "a photo of a dirty {}.",
    }  # fmt: skip
    sentences = vpkit.fill_templates(list(wanted.values()), images.class_names)
    text = clip.encode_text(sentences).view(len(wanted), len(images.class_names), -1)
    torch.manual_seed(0)
    per_style = {}
    for s, style in enumerate(wanted):
        hits = 0
        for x, y in images.batches(64):
            features = clip.encode_image(pictures.in_style(x, style).clamp(0, 1))
            hits += int((torch.einsum("bd,sbd->bs", features, text[:, y]).argmax(1) == s).sum())
        per_style[style] = hits / len(images)
    return {"accuracy": sum(per_style.values()) / len(per_style), "n": len(images) * len(wanted), "by style": per_style}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = {}
    for name in ("tiny", "tiny-vit"):
        try:
            clip = vpkit.load_clip(name)
        except FileNotFoundError as error:
            print(error)
            continue
        icons = vpkit.load_dataset("icons", "test", size=clip.image_size)
        results[name] = {"icons": top1(clip, icons)}
        results[name]["icons by domain"] = {
            style: top1(clip, vpkit.load_dataset(f"icons:{style}", "test", size=clip.image_size, subset=1056))
            for style in ("sketch", "inverted", "noisy", "textured")
        }
        if args.data:
            photos = vpkit.load_dataset(f"folder:{args.data / 'cifar10'}", "test", size=clip.image_size)
            names = ["car" if name == "automobile" else name for name in photos.class_names]
            photos = vpkit.ImageSet(photos.images, photos.labels, tuple(names))
            results[name]["CIFAR-10 test photos"] = top1(clip, photos)
        results[name]["reading"] = reading(clip)
        some = vpkit.load_dataset("icons", "test", size=clip.image_size, subset=528)
        results[name]["true name pasted"] = pasting(clip, some)
        results[name]["styles"] = styles(clip, some)
        print(name, json.dumps(results[name], indent=1))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
