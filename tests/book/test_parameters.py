"""The declared parameters of the chapters against the notebooks, the parameter files, and what users mistype."""

import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

import vpkit
from vpkit.book.grids import read_grid
from vpkit.book.parameters import chapter_parameters, check_values, known_chapters
from vpkit.book.session import declared_values

ROOT = Path(__file__).resolve().parents[2]


def test_every_chapter_is_declared():
    assert list(known_chapters()) == sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    with pytest.raises(ValueError, match="expected one of 01_visual_prompting"):
        chapter_parameters("09_none")


@pytest.mark.parametrize("chapter", known_chapters())
def test_the_declaration_is_that_of_the_cell(chapter):
    values = declared_values(nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4))
    assert list(values) == list(chapter_parameters(chapter))
    check_values(chapter, values)
    assert all(schema["description"] for schema in chapter_parameters(chapter).values())


@pytest.mark.parametrize("kind", ["full", "smoke"])
@pytest.mark.parametrize("chapter", known_chapters())
def test_the_parameter_files_are_valid(chapter, kind):
    path = ROOT / "vpkit" / "data" / "params" / kind / f"{chapter}.yaml"
    values = yaml.safe_load(path.read_text()) or {}
    assert set(values) <= set(chapter_parameters(chapter))
    check_values(chapter, values)


@pytest.mark.parametrize(
    ("chapter", "values", "message"),
    [
        ("01_visual_prompting", {"methods": ["paddings"]}, r"'paddings' is unknown, did you mean 'padding'\? expected"),
        ("02_label_mapping", {"methods": ["RLM", "ILM"]}, "'ILM' is unknown"),
        ("03_ilm_vp", {"methods": ["FLMM", "BLM +"]}, r"mean 'FLM'[\s\S]*'BLM \+' is unknown, did you mean 'BLM\+'\?"),
        ("04_clip_template_mapping", {"methods": ["fine-tuning"]}, "did you mean 'full fine-tuning'"),
        ("05_logoprompt", {"methods": ["base-to-new"]}, "did you mean 'base to new'"),
        ("05_logoprompt", {"shifted": ["icons:sketchy"]}, "did you mean 'icons:sketch'"),
        ("06_dpt", {"methods": ["DPTT", "VPT shalow", "coop"]}, r"'DPT'[\s\S]*'VPT shallow'[\s\S]*'coop' is unknown"),
        ("06_dpt", {"new_methods": ["CoCoOp"]}, "did you mean 'CoOp'"),
        ("06_dpt", {"methods": ["DPT", "DPT"]}, "non-unique"),
        ("09_your_own_task", {"methods": []}, "methods=\\[\\]"),
        ("03_ilm_vp", {"epochs": "five"}, "epochs='five': 'five' is not of type 'integer' .passes over"),
        ("03_ilm_vp", {"epochs": -1}, "epochs=-1: -1 is less than the minimum of 1"),
        ("03_ilm_vp", {"epochs": 2.0}, "not of type 'integer'"),
        ("03_ilm_vp", {"epochs": True}, "not of type 'integer'"),
        ("03_ilm_vp", {"seed": 1.5}, "seed=1.5: 1.5 is not of type 'integer'"),
        ("03_ilm_vp", {"seed": -1}, "less than the minimum of 0"),
        ("03_ilm_vp", {"lr": "1e-2"}, "this is text and not a number .YAML takes 1e-2 for text.: write 0.01"),
        ("03_ilm_vp", {"lr": 0}, "lr=0"),
        ("03_ilm_vp", {"methods": "FLM"}, "expected a list; papermill takes one as -y"),
        ("04_clip_template_mapping", {"template": "a photo"}, "template='a photo'"),
        ("05_logoprompt", {"location": "left"}, "'left' is unknown; expected 'random', 'top', 'bottom'"),
        ("08_reproduction", {"level": 95}, "95 is greater than or equal to the maximum of 1"),
    ],
)
def test_what_users_mistype_is_refused(chapter, values, message):
    with pytest.raises(ValueError, match=message):
        check_values(chapter, values)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError, match=r"epochs=0[\s\S]*lr=-1") as said:
        check_values("03_ilm_vp", {"epochs": 0, "lr": -1, "seed": 0})
    assert len(str(said.value).splitlines()) == 2


@pytest.fixture
def notebook(monkeypatch):
    """A chapter that ran its parameters cell, in this process."""

    def ran(**values):
        main = sys.modules["__main__"]
        for name, value in (values | {"In": []}).items():
            monkeypatch.setattr(main, name, value, raising=False)

    return ran


def test_a_chapter_checks_its_values_when_it_starts(notebook, tmp_path):
    notebook(epochs=3, methods=["FLM"], results_dir=str(tmp_path / "new" / "runs"))
    vpkit.start(0, "cpu", chapter="03_ilm_vp")
    assert list((tmp_path / "new" / "runs").iterdir()) == []
    notebook(epochs=3, methods=["FLMM"])
    with pytest.raises(ValueError, match="did you mean 'FLM'"):
        vpkit.start(0, "cpu", chapter="03_ilm_vp")


def test_where_results_go_is_checked_before_anything_is_trained(notebook, tmp_path):
    (tmp_path / "file").write_text("")
    notebook(epochs=3, results_dir=str(tmp_path / "file" / "runs"))
    with pytest.raises(OSError, match="results cannot be written there"):
        vpkit.start(0, "cpu", chapter="03_ilm_vp")


def test_a_grid_with_a_wrong_value_is_refused_before_it_runs(tmp_path):
    grid = tmp_path / "grid.yaml"
    notebook = ROOT / "notebooks" / "03_ilm_vp.ipynb"
    grid.write_text(f"notebook: {notebook}\nparameters: {{methods: [FLMM]}}\ngrid: {{seed: [0, 1]}}\n")
    with pytest.raises(ValueError, match=r"grid\.yaml: methods=\['FLMM'\]: .* did you mean 'FLM'"):
        read_grid(grid)


@pytest.mark.slow
def test_a_misspelt_method_stops_a_chapter_before_it_trains(tmp_path):
    parameters = {"methods": ["FLMM", "BLM +"], "results_dir": str(tmp_path / "runs"), "device": "cpu"}
    with pytest.raises(papermill.PapermillExecutionError, match="did you mean 'FLM'"):
        papermill.execute_notebook(
            ROOT / "notebooks" / "03_ilm_vp.ipynb", tmp_path / "ran.ipynb", parameters,
            kernel_name="python3", progress_bar=False,
        )  # fmt: skip
    assert not (tmp_path / "runs").exists()
