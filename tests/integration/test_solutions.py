"""The solutions: one for every exercise, run as they stand, and still fitting the chapters they change."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "book" / "_ext")]

import run_solutions  # noqa: E402
from solutions import command, exercises  # noqa: E402

FILES = sorted(run_solutions.FOLDER.glob("[0-9]*.yaml"))
SOLUTIONS = [(path.stem, solution) for path in FILES for solution in yaml.safe_load(path.read_text(encoding="utf-8"))]


def test_every_exercise_has_a_solution():
    chapters = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert [path.stem for path in FILES] == chapters
    for chapter in chapters:
        numbers = [solution["exercise"] for name, solution in SOLUTIONS if name == chapter]
        assert numbers == list(range(1, len(exercises(chapter)) + 1))


@pytest.mark.parametrize(("chapter", "solution"), SOLUTIONS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_solution_was_run_as_it_stands(chapter, solution):
    assert len(solution["answer"].split()) >= 10
    if "needs" not in solution:  # cannot be run here, or is answered by another one's run
        assert "elsewhere" in solution or "same_as" in solution
        return
    printed = json.loads(run_solutions.PRINTED.read_text(encoding="utf-8"))[f"{chapter} {solution['exercise']}"]
    assert printed["digest"] == run_solutions.digest(solution.get("notebook", chapter), solution), (
        "changed since it was run: make solutions"
    )
    assert printed["text"].strip()
    assert "/tmp/" not in printed["text"]
    cells = run_solutions.shortened(solution.get("notebook", chapter), solution).cells
    assert "parameters" in cells[0].metadata["tags"]
    declared = {line.split(" = ")[0] for line in cells[0].source.splitlines()}
    assert all(set(parameters) <= declared for parameters in solution.get("runs", []))


def test_a_solution_is_out_of_date_when_a_cell_it_runs_changes(tmp_path, monkeypatch):
    chapter, solution = "01_visual_prompting", {"exercise": 9, "needs": ["load_frozen"], "show": "print(1)"}
    before = run_solutions.digest(chapter, solution)
    monkeypatch.setattr(run_solutions, "ROOT", tmp_path)
    for place, changes in ((0, True), (1, False), (None, False), ("load_frozen", True)):
        notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        unused = [cell for cell in code[2:] if "load_frozen" not in cell.source]
        used = [cell for cell in code[2:] if "load_frozen" in cell.source]
        cell = code[place] if isinstance(place, int) else (used if place else unused)[0]
        cell.source += "\nmore = 1"
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        nbformat.write(notebook, tmp_path / "notebooks" / f"{chapter}.ipynb")
        assert (run_solutions.digest(chapter, solution) != before) == changes, place


def test_a_solution_that_no_longer_fits_its_chapter_is_refused():
    with pytest.raises(ValueError, match="01_visual_prompting, exercise 9: no cell of the chapter has 'not there'"):
        run_solutions.shortened("01_visual_prompting", {"exercise": 9, "needs": ["not there"]})
    edited = {"exercise": 9, "needs": ["load_frozen"], "edits": {"no such line": ""}}
    with pytest.raises(ValueError, match="no such line"):
        run_solutions.shortened("01_visual_prompting", edited)


def test_runs_are_shown_as_papermill_takes_them():
    shown = command("03_ilm_vp", {"seed": 1, "methods": ["BLM", "BLM+"]})
    assert shown == "papermill notebooks/03_ilm_vp.ipynb out.ipynb -p seed 1 -y 'methods: [BLM, BLM+]'"
