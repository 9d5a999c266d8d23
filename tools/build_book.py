"""Run every chapter with papermill and build the HTML book from those outputs.

    python tools/build_book.py            run at the default parameters, build _build/book (make book)
    python tools/build_book.py --smoke    run on tiny parameters, build _build/smoke_book (make smoke)
    python tools/build_book.py --store    run at the defaults and write the tidied outputs back (make tidy)

Chapters run side by side, each with one thread. The work tree is left as it is, except by --store.
"""

import argparse
import base64
import json
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import nbformat
import yaml
from build_live import LIVE_CHAPTERS
from side_by_side import TIMES, Job, Outcome, print_errors, run_all, stored_times

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PARAMS = ROOT / "vpkit" / "data" / "params"
BUDGET = 120  # core-seconds of a chapter at its defaults
HTML_SECONDS = 40  # what the HTML takes afterwards, for the estimate only


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny parameters")
    parser.add_argument("--store", action="store_true", help="write the outputs back into notebooks/")
    parser.add_argument("--workers", type=int, help="chapters at once; default: one a core")
    parser.add_argument("chapters", nargs="*", help="only these, such as 01_visual_prompting")
    options = parser.parse_args()
    chosen = [path for path in CHAPTERS if not options.chapters or path.stem in options.chapters]
    if not chosen:
        parser.error(f"no such chapter: expected some of {', '.join(path.stem for path in CHAPTERS)}")

    executed = ROOT / "_build" / ("smoke" if options.smoke else "executed")
    shutil.rmtree(executed, ignore_errors=True)
    executed.mkdir(parents=True)
    jobs = [job_of(path, executed, options.smoke) for path in chosen]
    whole = not (options.smoke or options.store or options.chapters)
    outcomes = list(run_all(jobs, options.workers, after=0 if options.store else HTML_SECONDS))
    if print_errors(outcomes):
        return 1
    if not options.smoke:
        print_budget(outcomes)
    if whole and (ROOT / "live").is_dir() and (status := build_live(options.workers)):
        return status
    if options.store:
        for path in chosen:
            notebook = tidy(nbformat.read(executed / path.name, as_version=4))
            nbformat.write(notebook, path)
            store_readme_figure(notebook)
        store_times(outcomes)
        return 0
    return build_html(executed, ROOT / "_build" / ("smoke_book" if options.smoke else "book"))


def job_of(path: Path, executed: Path, smoke: bool) -> Job:
    parameters = yaml.safe_load((PARAMS / "smoke" / path.with_suffix(".yaml").name).read_text()) if smoke else {}
    # What the chapter finds is kept, to be compared with another run of the same; what it learns, for the page Try it.
    kept = {"VPKIT_RESULTS": str(executed / "results" / path.stem)}
    if path.stem in LIVE_CHAPTERS and not smoke:
        kept["VPKIT_CHECKPOINTS"] = str(executed / "checkpoints" / path.stem)
    return Job.of(path.stem, path, executed / path.name, parameters=parameters, environment=kept)


def build_live(workers: int | None) -> int:
    """The models of the page Try it, with what the chapters just learned; one line where npm is missing.

    In a process of its own: torch is loaded there, and not beside the chapters.
    """
    more = ["--workers", str(workers)] if workers else []
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "build_live.py", "--optional", *more], check=False
    ).returncode


def print_budget(outcomes: list[Outcome]) -> None:
    for outcome in sorted(outcomes, key=lambda outcome: outcome.name):
        over = "  OVER" if outcome.core_seconds > BUDGET else ""
        print(f"{outcome.name:<28} {outcome.core_seconds:4.0f} of {BUDGET} core-seconds{over}")


def store_times(outcomes: list[Outcome]) -> None:
    """What each cell took, for the estimates of the next runs and the minutes in the README."""
    times = stored_times() | {"date": str(date.today())}
    for outcome in outcomes:
        times.setdefault("chapters", {})[outcome.name] = {
            "seconds": round(outcome.seconds, 1),
            "core_seconds": round(outcome.core_seconds, 1),
            "cells": [round(seconds, 2) for seconds in outcome.cells],
        }
    times["chapters"] = dict(sorted(times["chapters"].items()))
    TIMES.write_text(json.dumps(times, indent=1) + "\n")


def tidy(notebook):
    """What is committed: outputs and kernelspec, without times, widget state, progress bars or papermill's marks."""
    kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernelspec, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            for output in cell.outputs:  # of a control, the page keeps what was drawn in advance
                if output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None):
                    output.data.pop("text/plain", None)
            cell.outputs = [output for output in cell.outputs if not _is_transient(output)]
    return notebook


def _is_transient(output) -> bool:
    return output.get("name") == "stderr" or output.get("data", True) == {}


def store_readme_figure(notebook) -> None:
    """The README's picture is the output of the cell tagged readme-figure, not a drawing of its own."""
    for cell in notebook.cells:
        if "readme-figure" in cell.metadata.get("tags", []):
            (image,) = (output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {}))
            (ROOT / "book" / "figures" / "readme.png").write_bytes(base64.b64decode(image))


def build_html(executed: Path, source: Path) -> int:
    """Jupyter Book over `source`, a copy of book/ in which the chapters are the executed ones."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "book", source, ignore=shutil.ignore_patterns("_build", "notebooks"))  # follows symlinks
    (source / "notebooks").mkdir()
    for path in executed.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        # The cell that papermill injects is only there when parameters were passed; widgets need a kernel.
        nbformat.write(tidy(notebook), source / "notebooks" / path.name)
    program = Path(sys.executable).with_name("jupyter-book")
    finished = subprocess.run([program, "build", source, "--all", "-q", "-W", "--keep-going"], check=False)
    page = source / "_build" / "html" / "index.html"
    if finished.returncode or not page.exists():
        print("the HTML was not built: see the warnings above", file=sys.stderr)
        return 1
    print(page)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
