"""Run the chapters on this machine's GPU; keep seconds, failures and every run's numbers (benchmarks/results/).

    python benchmarks/gpu_chapters.py --out FILE.json [--workers 4] [--only 01_visual_prompting ...] [--smoke]

Each chapter runs through papermill with `device="cuda"` at its defaults (`--smoke`: on tiny parameters). With one
worker the seconds are a chapter's own; with more, what it took beside the others, which the file says.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from time import perf_counter

import torch

from vpkit.book.results import provenance

ROOT = Path(__file__).resolve().parents[1]
KEPT = ("method", "metrics", "seconds")


def run(chapter: Path, device: str, smoke: bool, folder: Path) -> dict:
    """`chapter` through papermill: its seconds, its saved runs and the end of what it said if it failed."""
    results, executed = folder / "results" / chapter.stem, folder / chapter.name
    command = [sys.executable, "-m", "papermill", chapter, executed, "-p", "device", device, "--no-progress-bar"]
    if smoke:
        command += ["-f", ROOT / "vpkit" / "data" / "params" / "smoke" / f"{chapter.stem}.yaml"]
    environment = os.environ | {"VPKIT_RESULTS": str(results)}
    started = perf_counter()
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    outcome: dict = {"seconds": round(perf_counter() - started, 1), "runs": []}
    if done.returncode:
        outcome["error"] = done.stderr[-3000:]
        print(f"{chapter.stem} FAILED\n{outcome['error']}", flush=True)
    if executed.exists():
        cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
        times = [cell["metadata"].get("papermill", {}).get("duration") for cell in cells if cell["cell_type"] == "code"]
        outcome["cells"] = [None if time is None else round(time, 2) for time in times]
    for path in sorted(results.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        outcome["runs"].append({key: record[key] for key in KEPT} | {"dataset": record["parameters"].get("dataset")})
    print(f"{chapter.stem}: {outcome['seconds']} s, {len(outcome['runs'])} runs", flush=True)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("this machine has no usable GPU")
    chapters = [
        path for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")) if not args.only or path.stem in args.only
    ]
    record = {"date": str(date.today()), "workers": args.workers, "smoke": args.smoke, **provenance(), "chapters": {}}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.workers) as pool:
        outcomes = pool.map(lambda chapter: run(chapter, args.device, args.smoke, Path(folder)), chapters)
        for chapter, outcome in zip(chapters, outcomes, strict=True):
            record["chapters"][chapter.stem] = outcome
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(any("error" in outcome for outcome in record["chapters"].values()))


if __name__ == "__main__":
    sys.exit(main())
