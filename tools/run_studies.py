"""Rerun the studies that the chapters' figures read, and store them in the package (make studies).

    python tools/run_studies.py [01_visual_prompting ...]

Each point of a study is one papermill run of the chapter with params/full/<chapter>.yaml and the overrides below.
Its rows are written to _build/studies/<chapter>/, so an interrupted study goes on where it stopped; when all are
there they become one file, vpkit/data/studies/<chapter>.json.
"""

import argparse
import hashlib
import json
import sys
from itertools import product
from pathlib import Path

import papermill
import yaml

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2)

_MNIST = {"dataset": "mnist5k", "image_size": 48, "canvas_size": 96}
_TEXTILE = {"dataset": "textile", "image_size": 80, "canvas_size": 112}
_TEMPLATES = ["padding", "fixed patch", "random patch"]  # one pixel has one size
_GROWTH = ["FLM", "ILM soft + Hungarian"]  # beside ILM itself
STUDIES = {
    "01_visual_prompting": [
        {"methods": [*_TEMPLATES, "one pixel"] if size == 24 else _TEMPLATES, "seed": seed, "prompt_size": size}
        for seed, size in product(SEEDS, (24, 3, 12, 48))
    ],
    "02_label_mapping": [
        point | {"seed": seed} for point in ({"dataset": "icons"}, _MNIST, _TEXTILE) for seed in SEEDS
    ],
    "03_ilm_vp": [
        point | {"seed": seed}
        for point in (
            {"dataset": "icons"},
            _MNIST | {"flip_images": False},
            _TEXTILE,
            *({"methods": _GROWTH, "n_classes": n, "n_test": 1320} for n in (8, 16, 32, 64)),
            *({"methods": _GROWTH, "n_train": n} for n in (198, 396, 594, 792)),
            {"methods": ["FLM"], "dataset": "mnist5k", "image_size": 28, "canvas_size": 96},  # not enlarged
        )
        for seed in SEEDS
    ],
}


def run_study(chapter: str) -> None:
    parameters = yaml.safe_load((ROOT / "vpkit/data/params/full" / f"{chapter}.yaml").read_text())
    folder = ROOT / "_build" / "studies" / chapter
    records = []
    for number, point in enumerate(STUDIES[chapter], 1):
        digest = hashlib.sha256(json.dumps([parameters, point], sort_keys=True).encode()).hexdigest()[:10]
        runs = folder / digest
        done = runs / "executed.ipynb"  # papermill moves it here only when every cell has run
        print(f"{chapter} [{number}/{len(STUDIES[chapter])}] {point}", flush=True)
        if not done.exists():
            runs.mkdir(parents=True, exist_ok=True)
            partly = runs / "partly.ipynb"
            papermill.execute_notebook(
                ROOT / "notebooks" / f"{chapter}.ipynb", partly, parameters | point | {"results_dir": str(runs)},
                kernel_name="python3", cwd=runs, progress_bar=False, execution_timeout=3600,
            )  # fmt: skip
            partly.rename(done)
        records += [json.loads(path.read_text()) for path in sorted(runs.glob("*.json"))]
    path = ROOT / "vpkit/data/studies" / f"{chapter}.json"
    path.write_text(
        json.dumps(records, indent=None, separators=(",", ":")).replace('},{"format"', '},\n{"format"') + "\n"
    )
    print(f"{len(records)} runs stored in {path.relative_to(ROOT)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", choices=[*STUDIES, []], help="only these; default: all")
    for name in parser.parse_args().chapters or STUDIES:
        run_study(name)
    sys.exit()
