"""What the small CLIP models can do, measured on material they were not trained on.

    python tools/evaluate_tiny_clip.py [--data DIR] [--table book/tiny_clip_evaluation.txt]

DIR holds cifar10/test/<class>/*; without it CIFAR-10 is left out. Reading is tested in fonts kept from training, on
names that were never shown as words (tiny_clip/held_out_words.txt). The table is a part of the model card,
book/tiny_clip.md, with Wilson's 95 % intervals.
"""

import argparse
from pathlib import Path

import torch
from PIL import ImageFont
from tiny_clip import pictures
from tiny_clip.concepts import HELD_OUT_FONTS, Names, text_fonts, word_bank
from tiny_clip.held_out import HELD_OUT

import vpkit
from vpkit.datasets.icons import ICON_NAMES
from vpkit.tasks.task import interval_of_share

TEMPLATE = "This is a photo of a {}."


@torch.no_grad()
def top1(clip, images: vpkit.ImageSet, template: str = TEMPLATE) -> dict:
    model = clip.zero_shot(vpkit.prompts.fill_templates(template, images.class_names))
    hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in images.batches(64))
    return {"accuracy": hits / len(images), "n": len(images)}


@torch.no_grad()
def pictograms(clip) -> dict[str, dict]:
    """Zero-shot on the unseen designs: concepts of which other designs were shown, and those never pictured."""
    images = vpkit.load_dataset("pictograms", "test", size=clip.image_size)
    text = clip.encode_text(vpkit.prompts.fill_templates(TEMPLATE, images.class_names))
    unseen = torch.tensor([name in HELD_OUT for name in images.class_names])
    scores = torch.cat([clip.encode_image(x) @ text.T for x, _ in images.batches(64)])
    rows = unseen[images.labels]
    hits = scores.argmax(1) == images.labels
    among = scores[rows].masked_fill(~unseen, -torch.inf).argmax(1) == images.labels[rows]
    count, held = len(unseen), int(unseen.sum())
    return {
        f"zero-shot on `pictograms`, unseen designs of {count - held} seen concepts, among {count}": share(hits[~rows]),
        f"zero-shot on `pictograms`, {held} concepts never pictured, among {count}": share(hits[rows]),
        f"zero-shot on `pictograms`, {held} concepts never pictured, among these": share(among),
    }


def share(hits: torch.Tensor) -> dict:
    return {"accuracy": float(hits.float().mean()), "n": len(hits)}


@torch.no_grad()
def unread_words(clip) -> dict:
    """Names never shown as words, alone in the picture, in held-out fonts: the right one of 1,000 names."""
    listed = (Path(__file__).parent / "tiny_clip/held_out_words.txt").read_text().split("\n")
    unread, others = listed[:64], listed[64:1000]
    fonts = [path for path in text_fonts() if path.name.startswith(HELD_OUT_FONTS)]
    masks, labels = word_bank(Names(), unread, fonts)
    torch.manual_seed(0)
    text = clip.encode_text(vpkit.prompts.fill_templates(TEMPLATE, [*unread, *others]))
    scores = [clip.encode_image(pictures.written(m.float() / 255).clamp(0, 1)) @ text.T for m in masks.split(64)]
    return share(torch.cat(scores).argmax(1) == labels)


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
    text = clip.encode_text(vpkit.prompts.fill_templates(TEMPLATE, ICON_NAMES))
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
    text = clip.encode_text(vpkit.prompts.fill_templates(TEMPLATE, images.class_names))
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
    sentences = vpkit.prompts.fill_templates(list(wanted.values()), images.class_names)
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


def interval(accuracy: float, n: int) -> str:
    """A share in percent with its 95 % interval."""
    low, high = interval_of_share(round(accuracy * n), n)
    return f"{accuracy:.1%} ({low:.1%} to {high:.1%})"


def measured(clip, data: Path | None) -> dict[str, tuple[float, int]]:
    """Every measure of the model card: share of successes, and of how many."""
    found = pictograms(clip)
    icons = vpkit.load_dataset("icons", "test", size=clip.image_size)
    some = vpkit.load_dataset("icons", "test", size=clip.image_size, subset=528)
    found[f"zero-shot on `icons`, {len(icons.class_names)} classes"] = top1(clip, icons)
    for style in ("sketch", "inverted", "noisy", "textured"):
        shifted = vpkit.load_dataset(f"icons:{style}", "test", size=clip.image_size, subset=1056)
        found[f"zero-shot on `icons:{style}`"] = top1(clip, shifted)
    if data:
        photos = vpkit.load_dataset(f"folder:{data / 'cifar10'}", "test", size=clip.image_size)
        found["zero-shot on CIFAR-10 test photos, its own class names"] = top1(clip, photos)
    read = reading(clip)
    found[f"a name alone in the picture, {read['fonts']} held-out fonts, among {len(ICON_NAMES)}"] = read
    found["a name never shown as a word alone in the picture, same fonts, among 1,000"] = unread_words(clip)
    for ratio, result in pasting(clip, some).items():
        found[f"the true name on a strip of {ratio} raises its score"] = {
            "accuracy": result["raised"],
            "n": result["n"],
        }
    by_style = styles(clip, some)
    found["the template of the applied style is first of 12"] = by_style
    each = len(some)
    found |= {f"- {style}": {"accuracy": share, "n": each} for style, share in by_style["by style"].items()}
    return {measure: (result["accuracy"], result["n"]) for measure, result in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--models", nargs="+", default=["tiny", "tiny-vit"])
    parser.add_argument("--weights", type=Path, help="folder with other files of the same names")
    args = parser.parse_args()
    results = {}
    for name in args.models:
        try:
            weights = str(args.weights / f"{name}.safetensors") if args.weights else None
            results[name] = measured(vpkit.load_clip(name, weights=weights), args.data)
        except FileNotFoundError as error:
            print(error)
            continue
        for measure, (accuracy, n) in results[name].items():
            print(f"{name:<9} {interval(accuracy, n)} of {n:>5}  {measure}", flush=True)
    if args.table:
        lines = [f"| | n | {' | '.join(results)} |", "| --- |" + " ---: |" * (1 + len(results))]
        for measure, (_, n) in next(iter(results.values())).items():
            shares = " | ".join(interval(*found[measure]) for found in results.values())
            lines.append(f"| {measure} | {n:,} | {shares} |")
        args.table.write_text("\n".join(lines) + "\n")
