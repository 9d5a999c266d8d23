"""Run the solutions to the exercises and keep what they print.

    python tools/run_solutions.py                  those that changed since they were run (make solutions)
    python tools/run_solutions.py 03_ilm_vp        all of a chapter

`book/solutions/<chapter>.yaml` says for each exercise which cells of the chapter it `needs`, with which parameters
(`runs`) and `edits`, and what it adds (`show`). The chapters so shortened are run by papermill, side by side, each with
one thread; what the added cell prints, or the cell that `prints` names, goes to `book/solutions/printed.json` and from
there onto the page.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import nbformat
import yaml
from side_by_side import Job, run_all

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "book" / "solutions"
PRINTED = FOLDER / "printed.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", help="only these, such as 03_ilm_vp, and whether changed or not")
    parser.add_argument("--workers", type=int, help="notebooks at once; default: one a core")
    options = parser.parse_args()
    printed = json.loads(PRINTED.read_text()) if PRINTED.exists() else {}
    failed, wanted = [], {}
    for name, chapter, solution in listed(options.chapters):
        try:
            if options.chapters or printed.get(name, {}).get("digest") != digest(chapter, solution):
                wanted[name] = chapter, solution
        except ValueError as error:
            failed.append(f"{name}: {error}")
    with tempfile.TemporaryDirectory() as folder:
        jobs = {name: jobs_of(name, *found, Path(folder)) for name, found in wanted.items()}
        missing = {name: len(several) for name, several in jobs.items()}
        for outcome in run_all([job for several in jobs.values() for job in several], options.workers):
            name = outcome.name.partition(",")[0]
            missing[name] -= 1
            if outcome.error:
                failed.append(outcome.error)
                missing[name] = -1
            if missing[name] == 0:
                chapter, solution = wanted[name]
                text = "".join(shown(job.output, solution) for job in jobs[name])
                printed[name] = {"digest": digest(chapter, solution), "text": text}
                PRINTED.write_text(json.dumps(printed, indent=1, sort_keys=True) + "\n")
                print(f"{name}\n{text}", flush=True)
    if failed:
        print("failed:\n" + "\n".join(failed), file=sys.stderr)
    return len(failed) > 0


def listed(chapters: list[str]):
    """The solutions that can be run here: name, chapter and what the YAML says."""
    for path in sorted(FOLDER.glob("[0-9]*.yaml")):
        for solution in yaml.safe_load(path.read_text()):
            if "needs" in solution and (not chapters or path.stem in chapters):
                yield f"{path.stem} {solution['exercise']}", solution.get("notebook", path.stem), solution


def jobs_of(name: str, chapter: str, solution: dict, folder: Path) -> list[Job]:
    """One for each of the solution's parameters; one without any if it names none."""
    source = folder / f"{name}.ipynb"
    nbformat.write(shortened(chapter, solution), source)
    jobs = []
    for number, parameters in enumerate(solution.get("runs", [{}])):
        place = folder / f"{name} {number}"
        place.mkdir()
        called = f"{name}, run {number + 1}"
        jobs.append(Job.of(called, source, place / "run.ipynb", parameters=parameters, cwd=ROOT))
    return jobs


def digest(chapter: str, solution: dict) -> str:
    """Changes with everything that decides what is printed: the solution, not the answer written under it, and the
    chapter's parameters and cells that it runs. The setup cell is left out: `make links` writes an address into it.

    Raises:
        ValueError: as `shortened`.
    """
    decides = {key: value for key, value in solution.items() if key != "answer"}
    decides["code"] = [cell.source for number, cell in enumerate(shortened(chapter, solution).cells) if number != 1]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]


def shortened(chapter: str, solution: dict):
    """The chapter's parameters, its setup and the cells that are needed, edited, with the added cell at the end.

    Raises:
        ValueError: an edit or a needed cell that the chapter does not have.
    """
    notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    missing = [needed for needed in solution["needs"] if not any(needed in cell.source for cell in code[2:])]
    kept = code[:2] + [cell for cell in code[2:] if any(needed in cell.source for needed in solution["needs"])]
    for old, new in solution.get("edits", {}).items():
        missing += [] if any(old in cell.source for cell in kept) else [old]
        for cell in kept:
            cell.source = cell.source.replace(old, new)
    if "prints" in solution and not any(solution["prints"] in cell.source for cell in kept):
        missing.append(solution["prints"])
    if missing:
        raise ValueError(f"{chapter}, exercise {solution['exercise']}: no cell of the chapter has {missing[0]!r}")
    notebook.cells = kept + ([nbformat.v4.new_code_cell(solution["show"])] if "show" in solution else [])
    return notebook


def shown(executed: Path, solution: dict) -> str:
    """What the added cell printed, or the one that `prints` names."""
    cells = nbformat.read(executed, as_version=4).cells
    wanted = [cell for cell in cells if (solution.get("prints") or solution["show"]) in cell.source]
    return "".join(o.text for cell in wanted for o in cell.outputs if o.get("name") == "stdout")


if __name__ == "__main__":
    sys.exit(main())
