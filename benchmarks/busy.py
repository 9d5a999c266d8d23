"""How much slower a busy machine makes us: one endless loop a core beside it, as a ratio within one run.

    python benchmarks/busy.py                             settings of OpenMP, on a prompt step (3 minutes)
    python benchmarks/busy.py --chapters 02_label_mapping papermill in a plain shell, quiet and beside the loops
    python benchmarks/busy.py --book                      the whole of `make book`, the same
    ... --out benchmarks/results/DATE-busy-chapters.json  keeps it; --toy proves in seconds that the script works

Quiet and busy take turns, so that whatever else the machine does hits both. A ratio of 2 would be fair: half of each
core is gone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from time import perf_counter

from vpkit.book.results import provenance

ROOT = Path(__file__).resolve().parents[1]
CORES = len(os.sched_getaffinity(0))
SETTINGS = {  # environment in which torch is loaded
    "torch alone": {"OMP_WAIT_POLICY": "", "GOMP_SPINCOUNT": ""},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"OMP_WAIT_POLICY": "", "GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"OMP_WAIT_POLICY": "", "GOMP_SPINCOUNT": "10000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
STEP = """
import sys
sys.path.insert(0, "benchmarks")
import torch
from cpu_settings import images_per_second
from vpkit.book.session import keep_freed_memory
keep_freed_memory()
print(images_per_second("efficientnet_lite0", 16, True, False, torch.get_num_threads(), {seconds}))
"""


@contextmanager
def busy_loops(count: int = CORES):
    """So many processes that do nothing as fast as they can."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def environment(changes: dict[str, str]) -> dict[str, str]:
    """Of this process, with the changes; a variable that is changed to "" is not there."""
    changed = os.environ | changes
    return {name: value for name, value in changed.items() if value or name not in changes}


def run(command: list, changes: dict[str, str] | None = None) -> tuple[float, str]:
    """Seconds that the command took, and its output."""
    started = perf_counter()
    words, given = list(map(str, command)), environment(changes or {})
    ran = subprocess.run(words, cwd=ROOT, env=given, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{command} failed:\n{ran.stdout[-1000:]}\n{ran.stderr[-2000:]}")
    return perf_counter() - started, ran.stdout


def in_turns(measure: Callable[[], float], repeats: int, loops: tuple[int, ...]) -> dict[int, list[float]]:
    """What `measure` gives beside each number of loops, `repeats` times, taking turns."""
    found: dict[int, list[float]] = {count: [] for count in loops}
    for _ in range(repeats):
        for count in loops:
            with busy_loops(count):
                found[count].append(measure())
    return found


def step_speed(setting: str, seconds: float) -> float:
    """Images a second of a prompt step, in a process of its own."""
    return float(run([sys.executable, "-c", STEP.format(seconds=seconds)], SETTINGS[setting])[1].split()[-1])


def steps(repeats: int, seconds: float, names: list[str], loops: tuple[int, ...]) -> list[dict]:
    """Images a second of a prompt step on EfficientNet-Lite0 in each of SETTINGS."""
    rows = []
    for name in names:
        speeds = in_turns(partial(step_speed, name, seconds), repeats, loops)
        median = {f"images_per_second_{count}": statistics.median(values) for count, values in speeds.items()}
        rows.append({"setting": name, **median, "ratio": median["images_per_second_0"] / list(median.values())[-1]})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def chapter(name: str, folder: Path) -> float:
    """Seconds of papermill in a plain shell."""
    command = [sys.executable, "-m", "papermill", f"notebooks/{name}.ipynb", folder / "out.ipynb", "-k", "python3"]
    return run([*command, "--no-progress-bar", "--cwd", folder])[0]


def ratio_row(what: str, seconds: dict[int, list[float]]) -> dict:
    quiet, busy = (statistics.median(values) for values in seconds.values())
    row = {"what": what, "quiet_seconds": quiet, "busy_seconds": busy, "ratio": busy / quiet}
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chapters", nargs="*", default=[], help="such as 02_label_mapping; `all` for every one")
    parser.add_argument("--book", action="store_true")
    parser.add_argument("--repeats", type=int, help="default: 3 for steps, 1 for chapters and the book")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = {"date": str(date.today()), "loops": CORES, **provenance()}
    if args.out and args.out.exists():
        found = json.loads(args.out.read_text()) | found
    chapters = args.chapters
    if chapters == ["all"]:
        chapters = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for name in chapters:
            rows.append(ratio_row(name, in_turns(partial(chapter, name, Path(folder)), args.repeats or 1, (0, CORES))))
        if args.book:
            book = [sys.executable, "tools/build_book.py"]
            rows.append(ratio_row("make book", in_turns(lambda: run(book)[0], args.repeats or 1, (0, CORES))))
    if rows:
        kept = {row["what"]: row for row in found.get("ratios", [])} | {row["what"]: row for row in rows}
        found["ratios"] = list(kept.values())
    else:
        names = list(SETTINGS)[:2] if args.toy else list(SETTINGS)
        repeats, seconds, loops = (1, 0.1, (0, 1)) if args.toy else (args.repeats or 3, 5.0, (0, 1, CORES))
        found["steps"] = steps(repeats, seconds, names, loops)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
