"""Run the benchmarks and keep the numbers (make bench).

    python benchmarks/run.py [--toy | --gpu] [--repeats 3] [--only REGEX] [--out FILE.json]

Each measurement runs in a process of its own; variants are interleaved, so that whatever else the machine does hits
all of them. Repeats are seeds 0, 1, 2. Medians with the lowest and highest. --toy takes a minute and only proves that
the scripts work; --gpu measures what the targets for a GPU ask for.
"""

import argparse
import json
import math
import os
import re
import statistics
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cases
import frequency_mapping
import torch

from vpkit.book.results import provenance

# Each measurement is a fork of one process that has imported the packages and done nothing.
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["vpkit", "torchvision", "open_clip"])
PLAIN = ["plain", "plain, model trainable"]
FULL = [  # name, case, variants, options
    ("ILM-VP run, 990 images, 3 epochs", "ilm_vp", ["vpkit", *PLAIN], {"epochs": 3, "train": 990}),
    ("ILM-VP, one epoch", "ilm_vp", ["vpkit", *PLAIN], {"epochs": 1, "train": 990}),
    ("CLIP-VP step, ViT-B/32, batch 16, 100 classes", "clip_vp", ["vpkit", "plain"], {"steps": 2, "classes": 100}),
    *(
        (
            f"CoOp step, {architecture}, batch 32, {classes} classes",
            "coop",
            ["vpkit", "plain"],
            {"steps": 3, "batch": 32, "classes": classes, "architecture": architecture},
        )
        for architecture, classes in (("tiny", 3), ("tiny", 66), ("ViT-B-32", 3), ("ViT-B-32", 66))
    ),
    ("LoGoPrompt epoch, icons, 16 shots", "logoprompt", ["vpkit", "plain"], {"epochs": 4, "batch": 32}),
    ("DPT step, tiny-vit, batch 32", "dpt", ["vpkit", "plain"], {"batch": 32}),
    *(
        (f"prompt step, {architecture}, batch {batch}", "peak", ["vpkit"], options | {"batch": batch})
        for architecture, batch, options in (
            ("Lite0", 16, {"steps": 20, "architecture": "efficientnet_lite0"}),
            ("resnet50", 16, {"steps": 3, "architecture": "resnet50"}),
            ("ViT-B-32", 16, {"steps": 3, "architecture": "ViT-B-32"}),
        )
    ),
]
GPU = [  # what only a GPU can answer, at its batch sizes
    ("ILM-VP run, 2970 images, 10 epochs", "ilm_vp", ["vpkit", *PLAIN], {"epochs": 10, "train": 2970, "batch": 256}),
    ("Flowers102-sized ILM-VP, ResNet-18, 200 epochs", "flowers", ["vpkit"],
     {"epochs": 200, "train": 4093, "batch": 256, "canvas": 224}),
    *(
        (f"prompt step, {name}, batch 256", "peak", ["vpkit"], {"steps": 30, "batch": 256, "architecture": name})
        for name in ("resnet50", "ViT-B-32")
    ),
    ("LoGoPrompt epoch, icons, 16 shots", "logoprompt", ["vpkit", "plain"], {"epochs": 4, "batch": 32}),
    ("DPT step, tiny-vit, batch 32", "dpt", ["vpkit", "plain"], {"batch": 32}),
]  # fmt: skip
TOY = [
    ("ILM-VP run", "ilm_vp", ["vpkit", *PLAIN], {"epochs": 1, "train": 16, "classes": 8, "canvas": 64}),
    ("CLIP-VP step", "clip_vp", ["vpkit", "plain"], {"steps": 1, "batch": 2, "classes": 4}),
    ("CoOp step", "coop", ["vpkit", "plain"], {"steps": 1, "batch": 2, "classes": 4, "architecture": "tiny"}),
    ("LoGoPrompt epoch", "logoprompt", ["vpkit", "plain"], {"epochs": 1, "batch": 32, "shots": 1, "test": 66}),
    ("DPT step", "dpt", ["vpkit", "plain"], {"steps": 1, "batch": 2}),
    ("Flowers102-sized run", "flowers", ["vpkit"], {"epochs": 1, "train": 8, "batch": 8, "canvas": 160}),
    ("prompt step", "peak", ["vpkit"],
     {"steps": 1, "batch": 2, "canvas": 64, "matmul": 256, "architecture": "efficientnet_lite0"}),
]  # fmt: skip
GROWTH = {  # what grows, at which values; the rest stays
    "train": (128, 256, 512, 1024),
    "classes": (8, 32, 128, 512),
    "canvas": (64, 96, 128, 192),
}


def measure(case: str, variant: str, options: dict) -> dict:
    with ProcessPoolExecutor(1, FORKS) as own:
        return own.submit(cases.measured, case, cases.Options(variant, **options)).result()


def summary(runs: list[dict]) -> dict:
    return {
        key: {"median": statistics.median(r[key] for r in runs), "low": min(r[key] for r in runs),
              "high": max(r[key] for r in runs)}
        for key in runs[0]
    }  # fmt: skip


def slope(points: dict[int, float]) -> float:
    """Least-squares slope of log time against log size."""
    x, y = [math.log(n) for n in points], [math.log(t) for t in points.values()]
    mx, my = statistics.mean(x), statistics.mean(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


def write(out: Path | None, results: dict) -> None:
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="a regular expression: only the cases whose names it finds")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    repeats = 1 if args.toy else args.repeats
    pool = ThreadPoolExecutor(os.cpu_count() if args.toy else 1)  # what is timed runs alone
    results = {"date": str(date.today()), "repeats": repeats, **provenance(), "cases": {}, "growth": {}}
    if args.gpu and not torch.cuda.is_available():
        parser.error("--gpu: this machine has no usable GPU")
    cases_of = GPU if args.gpu else TOY if args.toy else FULL
    for name, case, variants, options in (case for case in cases_of if re.search(args.only, case[0])):
        wanted = [(case, variant, options | {"seed": seed}) for seed in range(repeats) for variant in variants]
        measured = list(pool.map(measure, *zip(*wanted, strict=True)))
        runs = {variant: measured[i :: len(variants)] for i, variant in enumerate(variants)}
        results["cases"][name] = {variant: summary(found) for variant, found in runs.items()}
        ours = results["cases"][name]["vpkit"]["seconds"]["median"]
        print(name)
        for variant, found in results["cases"][name].items():
            seconds = found["seconds"]
            line = f"  {variant:<24} {seconds['median']:8.3f} s ({seconds['low']:.3f} to {seconds['high']:.3f})"
            line += f"  x {seconds['median'] / ours:.1f}   peak {found['peak_mb']['median']:,.0f} MB"
            extra = [k for k in found if k not in ("seconds", "peak_mb")]
            print(line, *(f"  {k} {found[k]['median']:,.3g}" for k in extra), flush=True)
        write(args.out, results)  # a machine that is lent may be taken back
    if args.only:
        return
    sizes = frequency_mapping.SIZES[:1] if args.toy else frequency_mapping.SIZES
    results["frequency mapping, ms"] = frequency_mapping.measure(sizes, 1 if args.toy else 5)
    frequency_mapping.show(results["frequency mapping, ms"])
    for axis, values in GROWTH.items():
        few = values[:2] if args.toy else values
        base = {"train": 32 if args.toy else 256, "canvas": 64, "classes": 8, "steps": 1 if args.toy else 3}
        asked = [base | {axis: n} for _ in range(repeats) for n in few]
        measured = list(pool.map(partial(measure, "mapping_pass", "vpkit"), asked))
        found = {n: measured[i :: len(few)] for i, n in enumerate(few)}
        for key in ("seconds", "peak_mb"):
            points = {n: statistics.median(r[key] for r in runs) for n, runs in found.items()}
            results["growth"][f"{key} with {axis}"] = {"points": points, "slope": slope(points)}
            shown = ", ".join(f"{n}: {value:,.3g}" for n, value in points.items())
            print(f"mapping pass, {key} with {axis}: {shown}   log-log slope {slope(points):.2f}")
    write(args.out, results)


if __name__ == "__main__":
    main()
