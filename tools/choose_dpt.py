"""Try the settings of chapter 6 on validation, as many for each method, and write what each gave.

    python tools/choose_dpt.py                          # adds to book/dpt_tried.csv what is not there yet
    python tools/choose_dpt.py --datasets pictograms --methods VPT

The images are four of each class of `pictograms`, or of `pictograms:inverted`, and 488 of its validation split; the
test split is not touched. Every method has six settings. VPT has one learning rate; VLP and DPT have two, and the
number of guided epochs; CoOp has one, of the text.
"""

import argparse
import csv
import time
from pathlib import Path

import torch

import vpkit
from vpkit import evaluate, fit
from vpkit.methods import DualPromptClassifier, PromptSRC, dpt
from vpkit.prompts import ClassAwareTokens, ContextPrompt, TokenPrompt, cache_patches, fill_templates
from vpkit.training.schedules import coop, of_each_group

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("dataset", "method", "lr", "text_lr", "guided_epochs", "seed", "val_accuracy")
BOTH_SIDES = ((0.03, 0.005, 1), (0.1, 0.005, 1), (0.1, 0.005, 0), (0.1, 0.05, 0), (0.3, 0.005, 0), (0.3, 0.05, 0))
SETTINGS = {  # learning rates of the image side and of the text side, guided epochs
    "CoOp": tuple((None, rate, 0) for rate in (0.001, 0.005, 0.015, 0.05, 0.15, 0.5)),
    "VPT": tuple((rate, None, 0) for rate in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
    "VLP": BOTH_SIDES,
    "DPT": BOTH_SIDES,
    "PromptSRC": tuple(s if s[2] == 0 else (s[0] / 10, s[1], 0) for s in BOTH_SIDES),
}


def trained(clip, method, train, lr, text_lr, guided_epochs, seed, epochs):
    """A classifier of chapter 6 (`make` and `learn` there), trained."""
    names = train.class_names
    tokens = text = None
    torch.manual_seed(seed)
    if lr is not None:
        width = train.inputs.tokens.shape[2]
        aware = {4: ClassAwareTokens(clip.embed_dim, width, len(names))} if method == "DPT" else {}
        tokens = TokenPrompt(clip, 10, class_aware=aware)
    if text_lr is not None:
        torch.manual_seed(seed)
        text = ContextPrompt(clip, names, 4, words="a photo of a")
    kind = PromptSRC if method == "PromptSRC" else DualPromptClassifier
    classifier = kind(clip, tokens, clip.encode_text(fill_templates("a photo of a {}.", names)), text)
    sides = [side for side in ((tokens, lr), (text, text_lr)) if side[0] is not None]
    groups = [{"params": list(side.parameters()), "lr": rate} for side, rate in sides]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    schedule = of_each_group(*(coop(rate, 0) for _, rate in sides))
    guide = dpt.guide(guided_epochs)
    fit(classifier, train.batches(32, shuffle=True), None, optimizer, epochs, guide, schedule=schedule, show=False)
    return classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["pictograms", "pictograms:inverted"])
    parser.add_argument("--methods", nargs="+", default=list(SETTINGS))
    parser.add_argument("--model", default="tiny-vit-2")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "book" / "dpt_tried.csv")
    args = parser.parse_args()
    rows = list(csv.DictReader(args.out.open(encoding="utf-8"))) if args.out.is_file() else []
    done = {tuple(row[column] for column in COLUMNS[:-1]) for row in rows}
    clip = vpkit.load_clip(args.model, vpkit.start(seed=args.seed, device="cpu"))
    for dataset in args.datasets:
        train, val = (
            cache_patches(clip, vpkit.load_dataset(dataset, split, size=clip.image_size, seed=args.seed, **of))
            for split, of in (("train", {"shots": 4}), ("val", {"subset": 488}))
        )
        for method in args.methods:
            for setting in SETTINGS[method]:
                key = tuple(str("" if value is None else value) for value in (dataset, method, *setting, args.seed))
                if key in done:
                    continue
                start = time.perf_counter()
                try:
                    classifier = trained(clip, method, train, *setting, args.seed, args.epochs)
                    accuracy = evaluate(classifier, val.batches(64)).accuracy
                except FloatingPointError:
                    accuracy = 0.0  # diverged
                rows.append(dict(zip(COLUMNS, (*key, f"{accuracy:.4f}"), strict=True)))
                print(*rows[-1].values(), f"{time.perf_counter() - start:.0f} s", flush=True)
                with args.out.open("w", encoding="utf-8", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)


if __name__ == "__main__":
    main()
