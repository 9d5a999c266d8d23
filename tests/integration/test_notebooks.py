"""The chapters as data: what a reader and papermill rely on, without running them."""

import ast
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
import yaml
from papermill.inspection import inspect_notebook

import vpkit

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PARAMS = ROOT / "vpkit" / "data" / "params"
COMMON = {
    "dataset", "model", "methods", "epochs", "lr", "batch_size", "n_train", "n_test", "seed", "device", "results_dir",
}  # fmt: skip
READS_ONLY = {"08_reproduction"}  # trains nothing: no dataset, model or epochs of its own


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request):
    return request.param


@pytest.fixture
def cells(chapter):
    return nbformat.read(chapter, as_version=4).cells


@pytest.fixture
def code(cells):
    return [cell for cell in cells if cell.cell_type == "code"]


def lines_of(cell):
    """Its lines of code: all but empty ones and those that hold only a comment."""
    return [line for line in cell.source.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def test_there_are_chapters():
    assert len(CHAPTERS) >= 2


def test_the_parameters_cell_is_first_flat_and_complete(chapter, code):
    tagged = [i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == [0]
    body = ast.parse(code[0].source).body
    assert all(isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) for node in body)
    declared = {node.targets[0].id: ast.literal_eval(node.value) for node in body}  # literals, or this raises
    assert set(declared) >= ({"seed", "device", "results_dir"} if chapter.stem in READS_ONLY else COMMON)
    assert set(inspect_notebook(str(chapter))) == set(declared)  # papermill sees the same names


def test_parameter_files_name_only_what_the_chapter_has(chapter, code):
    declared = {node.targets[0].id for node in ast.parse(code[0].source).body}
    for kind in ("smoke", "full"):
        assert set(yaml.safe_load((PARAMS / kind / f"{chapter.stem}.yaml").read_text())) <= declared


def test_it_is_as_short_as_promised(chapter, cells, code):
    counts = [len(lines_of(cell)) for cell in code]
    assert len(code) <= 15
    assert sum(counts) <= 110
    assert max(counts[2:]) <= 12  # the first two are lists, of parameters and of imports
    assert chapter.stat().st_size <= 1024 * 1024
    prose, questions = parted(cells)
    assert 800 <= len(prose.split()) <= 2000
    assert len(questions.split()) <= 300


def parted(cells) -> tuple[str, str]:
    """What is read from top to bottom, and the questions, whose answers are folded; both without comments."""
    read = "\n\n".join(re.sub("<!--.*?-->", "", cell.source) for cell in cells if cell.cell_type == "markdown")
    found = re.search(r"^## Questions\n.*?(?=^## )", read, re.DOTALL | re.MULTILINE)
    return read.replace(found[0], "") if found else read, found[0] if found else ""


def test_it_asks_three_questions_and_folds_the_answers(chapter, cells):
    _, section = parted(cells)
    asked = re.findall(r"<summary>(\d)\. (.+?)</summary>\n\n(.+?)\n\n</details>", section, re.DOTALL)
    assert [number for number, *_ in asked] == ["1", "2", "3"]
    assert section.count("<details>") == 3
    for _, question, answer in asked:
        assert question.endswith("?")
        assert "`" not in question  # in a line of HTML Markdown is not read
        assert 20 <= len(answer.split()) <= 100


def test_one_cell_of_the_book_shows_a_training_loop_and_the_rest_is_fitted():
    """That of chapter 1, which tests/training/test_loop.py proves equal to `train_epoch`."""
    sources = [(path, cell.source) for path in CHAPTERS for cell in nbformat.read(path, as_version=4).cells]
    sources += [(path, path.read_text()) for path in (ROOT / "book" / "solutions").glob("*.yaml")]
    loops = [path.name for path, source in sources if "optimizer.step" in source or ".backward()" in source]
    assert loops == ["01_visual_prompting.ipynb"]


def test_code_is_at_most_88_characters_wide(code):
    """So that none of it is cut off or wrapped in the built page."""
    assert [line for cell in code for line in cell.source.splitlines() if len(line) > 88] == []


def test_vpkit_is_imported_before_anything_that_may_load_torch(code):
    """Once OpenMP is loaded it is too late to let its threads sleep (vpkit/__init__.py)."""
    setup = ast.parse(re.sub("%pip.*", "pass", code[1].source)).body
    imports = [node for node in setup if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports]
    before = names[: names.index("vpkit")]
    assert {name.partition(".")[0] for name in before} <= sys.stdlib_module_names


def test_it_has_no_parameter_that_it_ignores(code):
    names = [node.targets[0].id for node in ast.parse(code[0].source).body]
    read = {
        node.id
        for cell in code[1:]
        for node in ast.walk(ast.parse(re.sub("%pip.*", "pass", cell.source)))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    read |= {"download", "checkpoints"}  # by `vpkit.start`, which tells what needs to know
    assert [name for name in names if name not in read] == []


def test_it_has_the_parts_of_every_chapter(chapter, cells, code):
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert prose.startswith("# ")
    assert "**Objectives.**" in prose
    for heading in ("## The algorithm", "## Summary", "## Exercises"):
        assert heading in prose
    assert "@@" not in prose  # no text left to be filled in
    assert f'vpkit.start(seed=seed, device=device, chapter="{chapter.stem}")' in code[1].source
    assert 'if find_spec("vpkit") is None:' in code[1].source
    assert re.search(r"plots\.(slide|browse)\(", code[-1].source)
    assert "interact(" not in "".join(cell.source for cell in code)  # see vpkit/plots/widgets.py


def test_the_committed_outputs_are_a_whole_run_in_order(code):
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


def test_a_control_that_is_shown_has_something_to_show(code):
    if "remove-output" in code[-1].metadata.get("tags", []):
        pytest.skip("this control is for a running notebook only")
    pages = [output.data["text/html"] for output in code[-1].outputs if "text/html" in output.get("data", {})]
    assert len(pages) == 1
    assert pages[0].count('class="vpkit-frame"') >= 2


def test_nothing_of_this_machine_or_of_a_run_is_left_in_it(chapter):
    text = chapter.read_text()
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    for mark in ('"papermill"', '"widgets"', "widget-view+json", '"execution":'):
        assert mark not in text
    assert '"name": "python3"' in text  # papermill infers the kernel from it


def test_outputs_that_nbval_compares_hold_text_only(code):
    marked = [cell for cell in code if "NBVAL_CHECK_OUTPUT" in cell.source]
    assert marked
    for cell in marked:
        assert [output.output_type for output in cell.outputs] == ["stream"]
        assert not re.search(r"\d\.\d", cell.outputs[0].text)  # floats are compared by tolerance, in assertions


def test_every_figure_says_what_it_shows(code):
    for cell in code:
        shows = any("image/png" in output.get("data", {}) for output in cell.outputs)
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        assert not shows or len(alt) > 20


def test_figures_of_results_state_their_finding(code):
    captions = [c.metadata["mystnb"]["figure"]["caption"] for c in code if "figure" in c.metadata.get("mystnb", {})]
    assert len(captions) >= 2
    assert all(len(caption.split()) >= 8 for caption in captions)


def test_it_uses_only_public_names(code):
    for name in re.findall(r"vpkit\.(\w+)", "\n".join(cell.source for cell in code)):
        assert hasattr(vpkit, name) or find_spec(f"vpkit.{name}"), name
    for names in re.findall(r"from vpkit import (\([^)]+\)|.+)", "\n".join(cell.source for cell in code)):
        for name in re.findall(r"\w+", names):
            assert hasattr(vpkit, name) or find_spec(f"vpkit.{name}"), name


def test_each_has_a_stored_study(chapter):
    study = vpkit.load_study(chapter.stem)
    assert sorted(study["seed"].unique()) == [0, 1, 2]
    tested = study.dropna(subset=["test_accuracy"])  # some methods are only tested on new classes, or on pairs
    assert len(tested) > len(study) / 2
    assert tested["test_accuracy"].between(0, 1).all()
    assert (tested["n_test"] >= 100).all()
