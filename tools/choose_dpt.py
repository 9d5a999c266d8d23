"""Try the settings of chapter 6 on validation, as many for each method, and write what each gave.

    python tools/choose_dpt.py                          # adds to book/dpt_tried.csv what is not there yet
    python tools/choose_dpt.py --datasets pictograms --methods VPT

The images are four of each class of `pictograms`, or of `pictograms:inverted`, and 488 of its validation split; the
test split is not touched. Every method has four settings. VPT has one learning rate; VLP, DPT and PromptSRC have two,
and VLP and DPT the number of guided epochs; CoOp and KgCoOp have one, of the text.
"""

import argparse
import csv
import time
from pathlib import Path

import vpkit
from vpkit import evaluate
from vpkit.datasets import EncodedSet
from vpkit.methods import sides
from vpkit.prompts import cache_patches

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("dataset", "method", "lr", "text_lr", "guided_epochs", "seed", "val_accuracy")
BOTH_SIDES = ((0.1, 0.005, 1), (0.3, 0.005, 0), (0.3, 0.05, 0), (0.3, 0.005, 1))
TEXT_ONLY = tuple((None, rate, 0) for rate in (0.005, 0.05, 0.2, 0.5))
SETTINGS = {  # learning rates of the image side and of the text side, guided epochs
    "CoOp": TEXT_ONLY,
    "KgCoOp": TEXT_ONLY,
    "VPT": tuple((rate, None, 0) for rate in (0.03, 0.1, 0.3, 1.0)),
    "VLP": BOTH_SIDES,
    "DPT": BOTH_SIDES,
    "PromptSRC": ((0.1, 0.005, 0), (0.3, 0.005, 0), (0.3, 0.05, 0), (1.0, 0.005, 0)),
}


def trained(clip, method, train, val, lr, text_lr, guided_epochs, seed, epochs):
    """A classifier of chapter 6, trained."""
    classifier = sides.classifier_for(clip, method, train.class_names, seed=seed)
    rates = {"lr": lr or 0.0, "text_lr": text_lr or 0.0}
    return sides.train_sides(classifier, train, val, method, epochs=epochs, guided_epochs=guided_epochs, **rates)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["pictograms:inverted", "pictograms"])
    parser.add_argument("--methods", nargs="+", default=list(SETTINGS))
    parser.add_argument("--model", default="tiny-vit-2")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "book" / "dpt_tried.csv")
    args = parser.parse_args(argv)
    rows = list(csv.DictReader(args.out.open(encoding="utf-8"))) if args.out.is_file() else []
    done = {tuple(row[column] for column in COLUMNS[:-1]) for row in rows}
    clip = vpkit.load_clip(args.model, vpkit.start(seed=args.seed, device="cpu"))
    for dataset in args.datasets:
        train, val = (
            cache_patches(clip, vpkit.load_dataset(dataset, split, size=clip.image_size, seed=args.seed, **of))
            for split, of in (("train", {"shots": 4}), ("val", {"subset": 488}))
        )
        few = EncodedSet(val.inputs[:64], val.labels[:64], val.class_names)  # shown while it trains
        for method in args.methods:
            for setting in SETTINGS[method]:
                key = tuple(str("" if value is None else value) for value in (dataset, method, *setting, args.seed))
                if key in done:
                    continue
                start = time.perf_counter()
                try:
                    classifier = trained(clip, method, train, few, *setting, args.seed, args.epochs)
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
