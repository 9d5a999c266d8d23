"""Run the solutions to the exercises and keep what they print.

    python tools/run_solutions.py                  those that changed since they were run (make solutions)
    python tools/run_solutions.py 03_ilm_vp        all of a chapter

`book/solutions/<chapter>.yaml` says for each exercise which cells of the chapter it `needs`, with which parameters
(`runs`) and `edits`, and what it adds (`show`). The chapter so shortened is run by papermill; what the added cell
prints, or the cell that `prints` names, goes to `book/solutions/printed.json` and from there onto the page.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "book" / "solutions"
PRINTED = FOLDER / "printed.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", help="only these, such as 03_ilm_vp, and whether changed or not")
    chosen = parser.parse_args().chapters
    failed = []
    printed = json.loads(PRINTED.read_text()) if PRINTED.exists() else {}
    for path in sorted(FOLDER.glob("[0-9]*.yaml")):
        for solution in yaml.safe_load(path.read_text()):
            name, chapter = f"{path.stem} {solution['exercise']}", solution.get("notebook", path.stem)
            if "needs" not in solution or (chosen and path.stem not in chosen):
                continue
            try:
                wanted = digest(chapter, solution)
                if not chosen and printed.get(name, {}).get("digest") == wanted:
                    continue
                print(name, end="  ", flush=True)
                started = perf_counter()
                text = run(chapter, solution)
            except (PapermillExecutionError, ValueError) as error:
                failed.append(name)
                print(f"failed\n{error}", flush=True)
                continue
            printed[name] = {"digest": wanted, "text": text}
            PRINTED.write_text(json.dumps(printed, indent=1, sort_keys=True) + "\n")
            print(f"{perf_counter() - started:.0f} s\n{text}", flush=True)
    if failed:
        print("failed: " + ", ".join(failed), file=sys.stderr)
    return len(failed) > 0


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


def run(chapter: str, solution: dict) -> str:
    texts = []
    with tempfile.TemporaryDirectory() as folder:
        given, output = Path(folder) / "given.ipynb", Path(folder) / "run.ipynb"
        nbformat.write(shortened(chapter, solution), given)
        for parameters in solution.get("runs", [{}]):
            papermill.execute_notebook(
                given, output, parameters, kernel_name="python3", cwd=ROOT, progress_bar=False, execution_timeout=900
            )
            cells = nbformat.read(output, as_version=4).cells
            wanted = [cell for cell in cells if (solution.get("prints") or solution["show"]) in cell.source]
            texts += [o.text for cell in wanted for o in cell.outputs if o.get("name") == "stdout"]
    return "".join(texts)


if __name__ == "__main__":
    sys.exit(main())
