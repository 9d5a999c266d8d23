"""Run a grid of notebook parameters, each point one papermill run, on Ray: `python -m vpkit.book.sweep grid.yaml`.

Ray schedules, retries after a lost worker and holds CPUs and GPUs; papermill executes. This file leaves out what is
done, and collects. What a grid looks like: see the files in grids/, and vpkit.book.grids.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import torch
from filelock import FileLock
from tqdm import tqdm

from vpkit.book.grids import Point, read_grid
from vpkit.files import write_atomically

__all__ = ["collect", "run_point", "run_points", "stale_runs"]

_RETRIES = 2  # after a lost worker; a notebook that fails is not tried again


def run_points(
    points: list[Point],
    folder: str | Path,
    *,
    cpus: float = 1,
    gpus: float | None = None,
    address: str | None = None,
    progress: bool = True,
) -> dict[str, str]:
    """Run the points that are not done yet; gives {key: ""} for those done and {key: error} for those that failed.

    A failed point stops no other. What is finished stays, whatever happens to this process; started again, it goes
    on with the rest. Two processes may work in one folder.

    Args:
        points: from `read_grid`.
        folder: gets one folder for each point; on a cluster, one that every node sees.
        cpus, gpus: what a run is given; a fraction of a GPU lets runs share it. gpus=None: one if this machine has any.
        address: of a Ray cluster; None starts Ray on this machine, for as long as this call.
        progress: show a bar.

    Raises:
        ImportError: Ray is not installed.
    """
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    found = {point.key: "" for point in points}
    todo = [point for point in points if not _is_done(folder / point.key)]
    if not todo:
        return found
    ray = _ray()
    gpus = float(torch.cuda.is_available()) if gpus is None else gpus
    # Paths of sockets are limited to 107 characters, which a TMPDIR of one's own may not leave room for.
    sockets = None if address else tempfile.mkdtemp(prefix="ray", dir="/tmp" if os.name == "posix" else None)
    ours = {"address": address} if address else {"include_dashboard": False, "_temp_dir": sockets}
    ray.init(log_to_driver=False, logging_level="ERROR", **ours)
    pending = {}
    try:
        task = ray.remote(run_point).options(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES)
        pending = {task.remote(point, str(folder)): point.key for point in todo}
        with tqdm(total=len(points), initial=len(points) - len(todo), unit="run", disable=not progress) as bar:
            while pending:
                (ready,), _ = ray.wait(list(pending), num_returns=1)
                key = pending.pop(ready)
                try:
                    found[key] = ray.get(ready)
                except ray.exceptions.WorkerCrashedError:
                    found[key] = f"lost its worker {_RETRIES + 1} times (killed, or out of memory?)"
                except ray.exceptions.RayError as error:
                    found[key] = str(error)
                if found[key]:
                    bar.write(f"{key} failed: {found[key].splitlines()[-1]}")
                bar.update()
    finally:
        for running in pending:  # after Ctrl-C; kernels go with their workers
            ray.cancel(running, force=True)
        ray.shutdown()
        if sockets:
            shutil.rmtree(sockets, ignore_errors=True)
    return found


def run_point(point: Point, folder: str) -> str:
    """Run one point in `folder`/<key>/, unless it is done; gives "" or the error. This is what Ray calls.

    While it runs, and if it fails, `partly.ipynb` is the notebook so far; `executed.ipynb` appears when all is done.
    """
    import papermill

    place = Path(folder) / point.key
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / ".lock"):  # let go of by the system, should this process be killed
        if _is_done(place):
            return ""
        source = place / "source.ipynb"
        source.write_text(point.notebook, encoding="utf-8")
        (place / "point.yaml").write_text(json.dumps({"name": point.name, "parameters": point.parameters}))
        try:
            states = place / "checkpoints"  # what was cut off goes on where it stopped
            kept = {"checkpoints": str(states)} if "checkpoints = " in point.notebook else {}
            papermill.execute_notebook(
                source, place / "partly.ipynb", point.parameters | {"results_dir": str(place)} | kept,
                kernel_name="python3", cwd=place, progress_bar=False,
            )  # fmt: skip
        except Exception as error:  # whatever a notebook does wrong is that point's affair
            text = "".join(traceback.format_exception_only(error))
            (place / "error.txt").write_text(text, encoding="utf-8")
            return text.strip()
        (place / "error.txt").unlink(missing_ok=True)
        source.unlink()
        shutil.rmtree(states, ignore_errors=True)
        (place / "partly.ipynb").replace(place / "executed.ipynb")
    return ""


def collect(points: list[Point], folder: str | Path, path: str | Path) -> int:
    """Write the runs of the points that are done into one JSON file, as `load_runs` reads it; gives their number.

    Prompts that were saved are copied beside it, of each name the first, into a folder called as the file.

    Raises:
        ValueError: none of the points is done.
    """
    done = [place for place in (Path(folder) / point.key for point in points) if _is_done(place)]
    runs = [json.loads(run.read_text(encoding="utf-8")) for place in done for run in sorted(place.glob("*.json"))]
    if not runs:
        raise ValueError(f"{folder}: no finished point of this grid has saved a run; run it without --list first")
    lines = ",\n".join(json.dumps(run, separators=(",", ":")) for run in runs)
    write_atomically(Path(path), lambda part: part.write_text(f"[{lines}]\n", encoding="utf-8"))
    prompts: dict[str, Path] = {}
    for prompt in (prompt for place in done for prompt in sorted(place.glob("*.safetensors"))):
        prompts.setdefault(prompt.name, prompt)
    for name, prompt in prompts.items():
        Path(path).with_suffix("").mkdir(exist_ok=True)
        shutil.copyfile(prompt, Path(path).with_suffix("") / name)
    return len(runs)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vpkit.book.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("grid", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the runs; default: results/<name of the grid>")
    parser.add_argument("--json", type=Path, help="afterwards, write all finished runs into this one file")
    parser.add_argument("--cpus", type=float, default=1, help="CPUs for a run (1)")
    parser.add_argument("--gpus", type=float, help="GPUs for a run; default: 1 if there is one; 0.25: four share it")
    parser.add_argument("--address", help="of a Ray cluster; default: this machine")
    parser.add_argument("--list", action="store_true", help="only show the points, and which are done")
    args = parser.parse_args(arguments)
    try:
        points = read_grid(args.grid)
    except ValueError as error:
        parser.error(str(error))
    out = args.out or Path("results") / args.grid.stem
    stale = stale_runs(points, out)
    if args.list:
        for point in points:
            place = out / point.key
            state = "done" if _is_done(place) else "failed" if (place / "error.txt").is_file() else ""
            print(f"{state:6} {point.key} {point.parameters}")
        for place in stale:
            print(f"stale  {place.name}: of these points, made with other code")
        return 0
    if stale:
        print(f"{len(stale)} older runs of these points in {out} were made with other code: left alone, not collected")
    try:
        found = run_points(points, out, cpus=args.cpus, gpus=args.gpus, address=args.address)
    except KeyboardInterrupt:
        print("interrupted: finished points are kept, the same command goes on", file=sys.stderr)
        return 130
    failed = {key: reason for key, reason in found.items() if reason}
    print(f"{len(found) - len(failed)} of {len(found)} points done in {out}")
    for key, reason in failed.items():
        print(f"failed: {out / key / 'partly.ipynb'}: {reason.splitlines()[-1]}", file=sys.stderr)
    if args.json:
        print(f"{collect(points, out, args.json)} runs in {args.json}")
    return 1 if failed else 0


def stale_runs(points: list[Point], folder: str | Path) -> list[Path]:
    """Folders of finished runs with the parameters of one of `points`, but made with other code, of any of the two."""
    keys, wanted = {point.key for point in points}, [(point.name, point.parameters) for point in points]
    found = []
    for path in sorted(Path(folder).glob("*/point.yaml")):
        if path.parent.name not in keys and _is_done(path.parent):
            ran = json.loads(path.read_text())
            if (ran["name"], ran["parameters"]) in wanted:
                found.append(path.parent)
    return found


def _is_done(place: Path) -> bool:
    return (place / "executed.ipynb").is_file()


def _ray():
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError("a sweep needs Ray and papermill: pip install ray papermill pyyaml") from error
    return ray


if __name__ == "__main__":
    from vpkit.book.sweep import main as imported  # Ray's workers find what belongs to a module, not to a script

    sys.exit(imported())
