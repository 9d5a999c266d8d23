"""When to map again, tried on few and on many classes: runs of three lengths, chosen on validation.

    python tools/choose_remapping.py                     # adds to book/remapping_tried.csv what is not there yet
    python tools/choose_remapping.py --epochs 60 --datasets mnist5k
    python tools/choose_remapping.py --ways FLM ILM --epochs 5 --sources 66 200     # so many source classes only
    python tools/choose_remapping.py --ways FLM ILM --epochs 5 --sides 32 56        # a wider or narrower border

A border around small images, EfficientNet-Lite0 on a canvas of 64 pixels, Adam at 0.05 with the paper's two drops of
the rate. Every way to map has the same first mapping and the same order of images. The choice is made on validation;
the test split is read at the end of each run and chooses nothing.
"""

import argparse
import csv
import time
from functools import partial
from itertools import product
from pathlib import Path

import torch

import vpkit
from vpkit import PromptedClassifier, evaluate
from vpkit.mappings import frequency_mapping
from vpkit.methods import ilm_vp
from vpkit.prompts import ExpandPrompt
from vpkit.training import schedules

ROOT = Path(__file__).resolve().parents[1]
TRIED = ROOT / "book" / "remapping_tried.csv"
COLUMNS = "dataset side sources epochs method seed val_accuracy test_accuracy last_loss changes".split()
CANVAS = 64
DATASETS = {  # side of the images, training images
    "mnist5k": (28, 300),
    "textile": (48, 300),
    "icons": (48, 396),
}
WAYS = {
    "RLM": None,
    "FLM": ilm_vp.MAPPINGS["FLM"],
    "ILM": ilm_vp.MAPPINGS["ILM"],
    "ILM soft + Hungarian": ilm_vp.MAPPINGS["ILM soft + Hungarian"],
    "ILM, margin 0.02": {"margin": 0.02},
    "ILM, margin 0.05": {"margin": 0.05},
    "ILM, margin 0.1": {"margin": 0.1},
    "ILM, every third epoch": {"interval": 3},
    "ILM, first three epochs": {"last": 3},
    "BLM+": ilm_vp.MAPPINGS["BLM+"],
}


def among(sources: int, seed: int):
    """Frequency mapping to so many source classes, drawn by the seed."""

    def assign(counts):
        left_out = torch.randperm(len(counts), generator=torch.Generator().manual_seed(seed))[sources:]
        return frequency_mapping(counts.index_fill(0, left_out, -1))

    return assign


def run(model, images, side: int, sources: int, way: str, epochs: int, seed: int) -> tuple[float, float, float, int]:
    """Validation and test accuracy, the last epoch's loss, and how often a class changed its source class."""
    train, val, test = images
    torch.manual_seed(seed)
    prompt = ExpandPrompt(side, CANVAS)
    start = ilm_vp.first_mapping(way, model, prompt, train.batches(), seed)
    classifier = PromptedClassifier(prompt, model, start)
    limited = {"assign": among(sources, seed)} if sources < len(model.class_names) else {}
    options = WAYS[way]
    remap = None if options is None else ilm_vp.remap(train.batches(), **options | limited)
    optimizer = torch.optim.Adam(prompt.parameters(), lr=0.05)
    schedule = schedules.multistep(epochs, 1)
    shuffled, changes = train.batches(16, shuffle=True), 0
    for epoch in range(1, epochs + 1):
        before = getattr(classifier.mapping, "index", None)
        if remap:
            remap(classifier, epoch)
        if epoch > 1 and before is not None:
            changes += int((classifier.mapping.index != before).sum())
        optimizer.param_groups[0]["lr"] = 0.05 * schedule(epoch - 1)
        fitted = vpkit.train_epoch(classifier, shuffled, optimizer)
    return (
        evaluate(classifier, val.batches()).accuracy,
        evaluate(classifier, test.batches()).accuracy,
        fitted.loss,
        changes,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=list(DATASETS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--epochs", nargs="+", type=int, default=[5, 20])
    parser.add_argument("--sides", nargs="+", type=int, help="of the images; the default depends on the data set")
    parser.add_argument("--sources", nargs="+", type=int, default=[1000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    model = vpkit.load_frozen("efficientnet_lite0", "cpu")
    places = [(dataset, side) for dataset in args.datasets for side in args.sides or [DATASETS[dataset][0]]]
    for (dataset, side), seed in product(places, args.seeds):
        count = DATASETS[dataset][1]
        load = partial(vpkit.load_dataset, dataset, size=side, seed=seed)
        images = load("train", subset=count), load("val", subset=528), load("test", subset=1056)
        for sources, epochs, way in product(args.sources, args.epochs, args.ways):
            key = (dataset, str(side), str(sources), str(epochs), way, str(seed))
            rows = list(csv.DictReader(TRIED.open(encoding="utf-8"))) if TRIED.is_file() else []
            if key in {tuple(row[column] for column in COLUMNS[:6]) for row in rows}:
                continue
            start = time.perf_counter()
            val, test, loss, changes = run(model, images, side, sources, way, epochs, seed)
            with TRIED.open("a", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if not rows:
                    writer.writerow(COLUMNS)
                writer.writerow([*key, f"{val:.4f}", f"{test:.4f}", f"{loss:.4f}", changes])
            print(*key, f"{val:.1%} {test:.1%}, {changes} changes, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
