"""Rerun the studies that the chapters' figures read, and store them in the package (make studies).

    python tools/run_studies.py [--jobs N] [01_visual_prompting ...]

Each point of a study is one papermill run of the chapter with params/full/<chapter>.yaml and the overrides below.
Its rows are written to _build/studies/<chapter>/, so an interrupted study goes on where it stopped; when all are
there they become one file, vpkit/data/studies/<chapter>.json; prompts that were saved are copied beside it.
"""

import argparse
import hashlib
import json
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from shutil import copyfile

import papermill
import yaml

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2)

_MNIST = {"dataset": "mnist5k", "image_size": 48, "canvas_size": 96}
_TEXTILE = {"dataset": "textile", "image_size": 80, "canvas_size": 112}
_TEMPLATES = ["padding", "fixed patch", "random patch"]  # one pixel has one size
_WORDINGS = ("a sketch of a {}.", "a painting of the {}.")
_GROWTH = ["FLM", "ILM soft + Hungarian"]  # beside ILM itself
_FEWER = ["ILM soft", "ILM soft + Hungarian", "BLM+", "linear mapping", "full fine-tuning"]
_PAIRS = {"methods": [], "pair_methods": ["DPT"], "shifted": [], "epochs": 12}
_BRIEF = {"methods": [], "shifted": [], "epochs": 12}
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
            _MNIST | {"methods": _FEWER, "flip_images": False},
            _TEXTILE | {"methods": _FEWER},
            *({"methods": _GROWTH, "n_classes": n, "n_test": 858} for n in (8, 16, 32, 64)),
            *({"methods": _GROWTH, "n_train": n} for n in (198, 396, 594)),
            {"methods": ["FLM"], "dataset": "mnist5k", "image_size": 28, "canvas_size": 96},  # not enlarged
        )
        for seed in SEEDS
    ],
    "04_clip_template_mapping": [
        point | {"seed": seed}
        for seed in SEEDS
        for point in (
            {"dataset": "icons"},
            {"dataset": "mnist5k"},
            {"dataset": "textile"},
            *({"dataset": f"icons:{style}", "methods": []} for style in ("inverted", "noisy")),
            *({"template": template, "methods": []} for template in _WORDINGS),
            *({"prompt_size": size, "methods": []} for size in (3, 24)),
        )
    ],
    "05_logoprompt": [
        point | {"seed": seed}
        for seed in SEEDS
        for point in (
            {"methods": ["base to new", "Table 4a", "two stages", "CoCoOp", "VP+TP", "tunable"]},
            {"shots": 16, "epochs": 8, "methods": ["base to new"]},
            *({"shots": shots, "epochs": epochs} for shots, epochs in ((1, 64), (2, 48), (8, 12))),
            *({"shots": 16, "epochs": 8, "methods": [], "dataset": name} for name in ("mnist5k", "textile")),
            {"shots": 16, "epochs": 12, "methods": [], "dataset": "icons:inverted"},
            _BRIEF,
            *(_BRIEF | {"strip_ratio": ratio} for ratio in (0.0714, 0.286)),
            _BRIEF | {"context_length": 16},
            _BRIEF | {"location": "top"},
            _BRIEF | {"include_positive": False},
        )
    ],
    "06_dpt": [
        *(
            point | {"seed": seed}
            for seed in SEEDS
            for point in (
                {"shots": 16, "epochs": 4, "pair_methods": []},
                {"shots": 1, "epochs": 16, "pair_methods": []},
                {"pair_methods": [], "new_methods": ["CoOp", "VPT", "VLP", "DPT"]},
                {"dataset": "textile", "shots": 16, "epochs": 16, "pair_methods": []},
                _PAIRS | {"pair_methods": ["CoOp", "VPT", "VLP", "DPT"]},
            )
        ),
        *(  # one seed
            _PAIRS | point | {"seed": 0}
            for point in (
                {"alpha": 0.0},
                {"candidates": 1},
                {"num_tokens": 30},
                {"aware_blocks": [1, 2, 3, 4]},
                {"guided_epochs": 0},
            )
        ),
    ],
}


def run_study(chapter: str, jobs: int) -> None:
    parameters = yaml.safe_load((ROOT / "vpkit/data/params/full" / f"{chapter}.yaml").read_text())
    points = STUDIES[chapter]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        folders = list(pool.map(run_point, [chapter] * len(points), points, [parameters] * len(points)))
    records = [json.loads(path.read_text()) for runs in folders for path in sorted(runs.glob("*.json"))]
    path = ROOT / "vpkit/data/studies" / f"{chapter}.json"
    path.write_text(
        json.dumps(records, indent=None, separators=(",", ":")).replace('},{"format"', '},\n{"format"') + "\n"
    )
    prompts = {}
    for found in (path for runs in folders for path in sorted(runs.glob("*.safetensors"))):
        prompts.setdefault(found.name, found)  # of the first point that learned one of this name
    for name, found in prompts.items():
        path.with_suffix("").mkdir(exist_ok=True)
        copyfile(found, path.with_suffix("") / name)
    print(f"{len(records)} runs stored in {path.relative_to(ROOT)}")


def run_point(chapter: str, point: dict, parameters: dict) -> Path:
    digest = hashlib.sha256(json.dumps([parameters, point], sort_keys=True).encode()).hexdigest()[:10]
    runs = ROOT / "_build" / "studies" / chapter / digest
    done = runs / "executed.ipynb"  # papermill moves it here only when every cell has run
    print(f"{chapter} {point}{' (done before)' if done.exists() else ''}", flush=True)
    if not done.exists():
        runs.mkdir(parents=True, exist_ok=True)
        partly = runs / "partly.ipynb"
        papermill.execute_notebook(
            ROOT / "notebooks" / f"{chapter}.ipynb", partly, parameters | point | {"results_dir": str(runs)},
            kernel_name="python3", cwd=runs, progress_bar=False, execution_timeout=3600,
        )  # fmt: skip
        partly.rename(done)
    return runs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", choices=[*STUDIES, []], help="only these; default: all")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="points at once, the cores shared between them"
    )
    args = parser.parse_args()
    # Kernels inherit it. One torch process per core finishes more points an hour than all cores on one point.
    os.environ["OMP_NUM_THREADS"] = str(max(1, os.cpu_count() // args.jobs))
    for name in args.chapters or STUDIES:
        run_study(name, args.jobs)
