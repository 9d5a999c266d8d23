"""Every printed cell that we claim a grid for is filled by the right run.

What a grid's points save is found by running their chapters on small random models; then each run of each point of
each grid gets numbers of its own, and `papers_beside_ours` has to find them.
"""

import hashlib
import json
from collections import defaultdict

import nbformat
import pytest
from in_process import CHAPTERS, CLIP_CHAPTERS, ROOT, run, small_clip

import vpkit
from vpkit.book.grids import read_grid
from vpkit.book.reproduction import papers_beside_ours
from vpkit.book.session import declared_values

pytestmark = pytest.mark.slow
VARIED = ("methods", "new_methods", "pair_methods", "shifted")  # what decides which rows and columns there are
COUNTS = ("n_test", "parameters")
OURS = {  # what a printed method is called here, written down once more
    "TP": "zero-shot", "CLIP": "zero-shot", "ZSCLIP": "zero-shot", "LP": "linear probe", "FT": "full fine-tuning",
    "FF": "full fine-tuning", "RLM-VP": "RLM", "FLM-VP": "FLM", "ILM-VP": "ILM",
    "LoGoPrompt+Adapter": "LoGoPrompt + adapter",
}  # fmt: skip
METRICS = {"base_accuracy": "base", "new_accuracy": "new", "harmonic_mean": "H"}


@pytest.fixture(scope="module")
def saved_by(tmp_path_factory):
    """(chapter, parameters) to {method: names of the numbers}, of a real run with small models."""
    patch, known = pytest.MonkeyPatch(), {}
    load = vpkit.load_dataset

    def digits(name, split, subset=None, shots=None, **options):
        """Ten classes, whatever was asked for; the parameters still say what it was."""
        options.pop("download", None)
        few = {"shots": 1} if shots else {"subset": min(subset or 40, 40)}
        return load(name, split, **options) if "classes" in options else load("digits", split, **few, **options)

    for place in (vpkit, vpkit.datasets):  # `load_splits` finds it in the second
        patch.setattr(place, "load_dataset", digits)
    patch.setattr(vpkit, "load_clip", small_clip)

    def saved(chapter, parameters):
        asked = {name: parameters[name] for name in VARIED if name in parameters}
        key = chapter, json.dumps(asked)
        if key not in known:
            small = (CHAPTERS | CLIP_CHAPTERS)[chapter][0] | asked | {"dataset": parameters["dataset"]}
            found = run(chapter, tmp_path_factory.mktemp(chapter), patch, **small)
            known[key] = {method: [n for n in record["metrics"] if n not in COUNTS] for method, record in found.items()}
        return known[key]

    yield saved
    patch.undo()


def planted_value(*what) -> float:
    return int(hashlib.sha256(json.dumps(what).encode()).hexdigest()[:13], 16) / 16**13


@pytest.fixture(scope="module")
def planted(saved_by, tmp_path_factory):
    """A folder with the runs of every grid, and the mean of three seeds to where it comes from."""
    folder, sources = tmp_path_factory.mktemp("planted"), defaultdict(list)
    for path in sorted((ROOT / "grids").glob("*_table*.yaml")):
        runs, seeds = [], defaultdict(list)
        for point in read_grid(path):
            whole = declared_values(nbformat.reads(point.notebook, as_version=4)) | point.parameters
            whole = {name: value for name, value in whole.items() if name not in ("device", "results_dir")}
            for method, names in saved_by(point.name, whole).items():
                metrics = {name: planted_value(path.stem, point.name, point.parameters, method, name) for name in names}
                runs.append({
                    "format": 1, "method": method, "parameters": whole, "metrics": metrics,
                    "history": [], "seconds": None, "hardware": {},
                })  # fmt: skip
                setting = {name: value for name, value in whole.items() if name != "seed"}
                for name, value in metrics.items():
                    seeds[point.name, method, name, json.dumps(setting)].append(value)
        (folder / f"{path.stem}.json").write_text(json.dumps(runs))
        for (chapter, method, name, setting), values in seeds.items():
            assert len(values) == 3
            source = {"chapter": chapter, "method": method, "metric": name, **json.loads(setting)}
            sources[round(100 * sum(values) / 3, 9)].append(source | {"grid": path.stem})
    return folder, sources


def plain(dataset: str) -> str:
    return "".join(letter for letter in dataset.lower() if letter.isalnum())


def test_every_cell_with_a_grid_has_its_own_number(planted):
    folder, sources = planted
    cells = papers_beside_ours(folder)
    empty = cells[(cells.why_not == "") & (cells.seeds != 3)]
    assert empty[["paper", "table", "method", "setting", "dataset"]].values.tolist() == []
    assert (cells[cells.why_not != ""].seeds == 0).all()
    single = cells[(cells.why_not == "") & ~cells.dataset.str.contains("Average")]
    assert len(single) > 700
    for cell in single.itertuples():
        (source,) = sources[round(cell.ours, 9)]  # each number was planted once
        where = f"{cell.paper} {cell.table} {cell.method} {cell.dataset}"
        assert source["grid"] == cell.grid, where
        shifted = cell.setting == "domain-generalization" and cell.dataset != "ImageNet"
        column = plain(cell.dataset).removeprefix("imagenet") if shifted else None
        assert shifted or plain(source["dataset"]) in (plain(cell.dataset), f"{plain(cell.dataset)}count"), where
        assert source["metric"] == (column or METRICS.get(cell.metric, "test_accuracy")), where
        named = OURS.get(cell.method, cell.method)
        if cell.method == "VP":
            named = "padding" if cell.paper == "vp" else "VP+TP"
        if cell.setting.startswith("ablation:visual_prompt_type"):
            named = source["method"]
        if cell.setting == "base-to-new" and cell.method == "LoGoPrompt":
            named = "LoGoPrompt, first stage"
        assert source["method"] == named, where
        if cell.method in ("LP", "FT", "FF") and cell.backbone.startswith(("Res", "BiT")):
            assert source["chapter"] == "03_ilm_vp", where  # chapters 1 and 2 have a probe, too, on smaller images
        if "shots" in source and cell.shots == cell.shots and cell.shots:
            assert source["shots"] == cell.shots, where


def test_cells_without_a_grid_are_few_and_named():
    cells = papers_beside_ours()
    assert (len(cells), (cells.why_not != "").sum()) == (940, 37)  # as chapter 8 says
    assert (cells[cells.why_not != ""].groupby(["paper", "table", "method"]).size()).to_dict() == {
        ("dpt", "Table I", "CoCoOp"): 12, ("dpt", "Table I", "ProDA"): 12, ("dpt", "Table I", "ProGrad"): 12,
        ("dpt", "Table V", "DPT"): 1,
    }  # fmt: skip
