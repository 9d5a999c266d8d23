"""How hard `pictograms` are: accuracies of methods that need no prompt, and the sheet of all designs.

    python tools/evaluate_pictograms.py --table book/pictograms_evaluation.txt --sheet book/figures/pictograms.png

Half an hour on one core; the table and the sheet are parts of book/datasets_and_models.md. Everything is chosen on
validation images, which are drawn from the training families.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn.functional import normalize

import vpkit
from vpkit.datasets import EncodedSet, cache_features
from vpkit.datasets.icons import DEJAVU
from vpkit.datasets.pictograms import TEST_FAMILIES, glyph, pictogram_table
from vpkit.methods import FineTuned, linear_probe
from vpkit.prompts import fill_templates

SEEDS = (0, 1, 2)
ON = {"new drawings of known designs": "val", **dict.fromkeys(TEST_FAMILIES, "test")}
TEMPLATE = "This is a photo of a {}."


def splits(side: int, seed: int) -> dict:
    """Sixteen training images a class, ten of each test family, twelve for validation."""

    def load(name, split, **options):
        return vpkit.load_dataset(name, split, size=side, seed=seed, **options)

    tests = {f: load(f"pictograms:{f}", "test", subset=1220) for f in TEST_FAMILIES}
    return {"train": load("pictograms", "train", shots=16), "val": load("pictograms", "val")} | tests


class Passed:
    """Features as if they were a model's, for a probe on what is in a cache already."""

    mean = torch.zeros(3)

    def features(self, x):
        return x


def measured(seed: int) -> dict[str, dict[str, float]]:
    """Accuracies in [0, 1] by method, on each part of `ON`."""
    found = {}
    small = splits(32, seed)
    grey = {
        name: EncodedSet(images.images.float().mean(1).flatten(1) / 255, images.labels, images.class_names)
        for name, images in small.items()
    }
    found["nearest class mean, pixels (32 px)"] = nearest_mean(grey)
    for model, side in (("efficientnet_lite0", 112), ("tiny", 96)):
        images = splits(side, seed)
        frozen = vpkit.load_clip(model) if model == "tiny" else vpkit.load_frozen(model)
        encode = frozen.encode_image if model == "tiny" else frozen.features
        features = {name: cache_features(encode, part) for name, part in images.items()}
        found[f"nearest class mean, features of `{model}`"] = nearest_mean(features)
        probe = linear_probe(Passed(), features["train"].batches(512), features["val"].batches(512))
        found[f"linear probe on `{model}`"] = {
            name: vpkit.evaluate(probe, features[part].batches(512)).accuracy for name, part in parts()
        }
        if model == "tiny":
            text = frozen.encode_text(fill_templates(TEMPLATE, images["val"].class_names))
            found["zero-shot `tiny`"] = {
                name: float(((features[part].inputs @ text.T).argmax(1) == features[part].labels).float().mean())
                for name, part in parts()
            }
        else:
            found[f"full fine-tuning of `{model}`, 6 epochs"] = fine_tuned(frozen, images, seed)
    return found


def fine_tuned(frozen, images: dict, seed: int) -> dict[str, float]:
    """Chapter 3's recipe: Adam at 1e-4 with a cosine. At 1e-3 nothing was learned, at 3e-4 not in the first epoch."""
    torch.manual_seed(seed)
    tuned = FineTuned(frozen, len(images["val"].class_names))
    optimizer = torch.optim.Adam(tuned.parameters(), lr=1e-4, weight_decay=5e-4)
    vpkit.fit(
        tuned, images["train"].batches(32, shuffle=True), None, optimizer, 6,
        schedule=vpkit.training.schedules.cosine, name="fine-tuning",
    )  # fmt: skip
    return {name: vpkit.evaluate(tuned, images[part].batches(64)).accuracy for name, part in parts()}


def parts():
    return [(name, "val" if split == "val" else name) for name, split in ON.items()]


def nearest_mean(sets: dict) -> dict[str, float]:
    train = sets["train"]
    x = normalize(train.inputs.float(), dim=1)
    means = torch.stack([x[train.labels == t].mean(0) for t in range(len(train.class_names))])
    found = {}
    for name, part in parts():
        distances = torch.cdist(normalize(sets[part].inputs.float(), dim=1), means)
        found[name] = float((distances.argmin(1) == sets[part].labels).float().mean())
    return found


def sheet(columns: int = 4, side: int = 34) -> Image.Image:
    """Every class with three of its training designs and one of each test family."""
    table = pictogram_table()
    rows = -(-len(table) // columns)
    cell = 128 + 5 * (side + 6) + 18
    picture = Image.new("L", (columns * cell, rows * (side + 8)), 255)
    pen, font = ImageDraw.Draw(picture), ImageFont.truetype(DEJAVU, 13)
    for i, (name, designs) in enumerate(table.items()):
        left, top = i // rows * cell, i % rows * (side + 8)
        pen.text((left + 4, top + side / 2), name, fill=0, font=font, anchor="lm")
        known = [(f, icon) for f, icons in designs.items() if f not in TEST_FAMILIES for icon in icons]
        by_family = [next(d for d in known if d[0] == f) for f in dict.fromkeys(f for f, _ in known)]
        chosen = by_family + [design for design in known if design not in by_family]
        shown = chosen[:3] + [(f, designs[f][0]) for f in TEST_FAMILIES]
        for k, design in enumerate(shown):
            place = (left + 128 + k * (side + 6) + (12 if k > 2 else 0), top + 3)
            picture.paste(drawn(*design, side), place)
    return picture


def drawn(family: str, icon: str, side: int) -> Image.Image:
    path, character = glyph(family, icon)
    font = ImageFont.truetype(path, 200)
    left, top, right, bottom = font.getbbox(character)
    mask = Image.new("L", (right - left, bottom - top), 255)
    ImageDraw.Draw(mask).text((-left, -top), character, fill=0, font=font)
    square = Image.new("L", (max(mask.size),) * 2, 255)
    square.paste(mask, ((square.width - mask.width) // 2, (square.height - mask.height) // 2))
    return square.resize((side, side), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    if args.sheet:
        sheet().quantize(16).save(args.sheet, optimize=True)
    if args.table:
        runs = [measured(seed) for seed in SEEDS]
        chance = 1 / len(pictogram_table())
        lines = [f"| | {' | '.join(ON)} |", "| --- |" + " ---: |" * len(ON)]
        lines.append("| chance |" + f" {chance:.1%} |" * len(ON))
        for method in runs[0]:
            cells = []
            for part in ON:
                values = [100 * run[method][part] for run in runs]
                cells.append(f"{sum(values) / len(values):.1f} ({min(values):.1f} to {max(values):.1f})")
            lines.append(f"| {method} | {' | '.join(cells)} |")
        args.table.write_text("\n".join(lines) + "\n")
        print(args.table.read_text())
