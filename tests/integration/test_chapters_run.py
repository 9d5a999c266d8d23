"""Each chapter runs with each of its methods alone, with none and with all, and with every model row.

Its code cells are executed here, without a kernel, on a few small images and a small network with random weights.
"""

import ast
import json
import re
from functools import partial
from pathlib import Path
from types import FunctionType

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from conftest import small_network
from PIL import Image
from timm import get_pretrained_cfg
from timm.data import ImageNetInfo, infer_imagenet_subset

import vpkit
from vpkit.imagenet_names import imagenet_class_names
from vpkit.methods.ilm_vp import MAPPINGS
from vpkit.models import FROZEN_MODELS, FrozenModel
from vpkit.models.hub import build_timm

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SMALL = {"canvas_size": 32, "prompt_size": 8, "epochs": 1, "device": "cpu"}
TEN = {"dataset": "digits", "n_train": 30, "n_test": 20}

# A line for each chapter: its smallest parameters, all its methods, all its models.
CHAPTERS = {
    "01_visual_prompting": (
        {**SMALL, "image_size": 16, "n_train": 30, "n_test": 20},
        ["padding", "fixed patch", "random patch", "one pixel"],
        list(FROZEN_MODELS),
    ),
    "02_label_mapping": (SMALL | TEN, ["RLM", "FLM", "FLM soft", "optimal", "optimal soft"], list(FROZEN_MODELS)),
    "03_ilm_vp": (
        SMALL | TEN,
        ["RLM", *MAPPINGS, "ILM from training", "linear mapping", "full fine-tuning"],
        list(FROZEN_MODELS),
    ),
}


def class_names(model: str) -> tuple[str, ...]:
    build = FROZEN_MODELS[model].build
    if isinstance(build, partial) and build.func is build_timm:  # timm gives every synonym: "tabby, tabby cat"
        info = ImageNetInfo(infer_imagenet_subset(get_pretrained_cfg(build.args[0])))
        return tuple(info.index_to_description(i) for i in range(info.num_classes()))
    return imagenet_class_names()


def small_frozen(model, device=None, **options) -> FrozenModel:
    torch.manual_seed(0)
    names = class_names(model)
    assert len(names) == FROZEN_MODELS[model].classes
    return FrozenModel(small_network(len(names)), names, image_size=32)


def run(chapter: str, folder: Path, monkeypatch, then: str = "", **parameters) -> dict[str, dict]:
    """The code cells of `chapter`, what they show rendered, `then` more; returns the saved runs by method."""
    monkeypatch.setattr(vpkit, "load_frozen", small_frozen)
    cells = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4).cells
    namespace = {"__name__": "chapter", "display": rendered}
    for number, cell in enumerate(cell for cell in cells if cell.cell_type == "code"):
        body = ast.parse(cell.source.replace("%pip", "pass  #")).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), f"{chapter}, cell {number}", "exec"), namespace)
        if last is not None:
            rendered(eval(compile(ast.Expression(last.value), f"{chapter}, cell {number}", "eval"), namespace))
        if number == 0:
            assert set(parameters) <= set(namespace)
            namespace |= parameters | {"results_dir": str(folder)}
    exec(then, namespace)
    plt.close("all")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    return {record["method"]: record for record in records}


def rendered(shown) -> None:
    """A table is only computed when it is shown."""
    getattr(shown, "_repr_html_", lambda: None)()


def subsets():
    for chapter, (_, methods, _) in CHAPTERS.items():
        for chosen in ([], *([method] for method in methods), methods):
            label = "all" if chosen is methods else " ".join(chosen) or "none"
            yield pytest.param(chapter, chosen, id=f"{chapter}-{label}")


@pytest.mark.parametrize(("chapter", "methods"), list(subsets()))
def test_a_chapter_runs_with_each_of_its_methods(chapter, methods, tmp_path, monkeypatch):
    found = run(chapter, tmp_path, monkeypatch, **CHAPTERS[chapter][0], methods=methods)
    assert set(methods) < set(found)  # and the controls
    assert all(len(found[method]["history"]) == 1 for method in methods)


@pytest.mark.parametrize(
    ("chapter", "model"), [(chapter, model) for chapter, (*_, models) in CHAPTERS.items() for model in models]
)
def test_a_chapter_runs_with_every_model(chapter, model, tmp_path, monkeypatch):
    assert run(chapter, tmp_path, monkeypatch, **CHAPTERS[chapter][0], model=model)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_figure_comes_between_training_and_saving(chapter, tmp_path, monkeypatch):
    """So that one that cannot be drawn loses no run."""
    order = []

    def noted(what, function):
        return lambda *args, **options: (order.append(what), function(*args, **options))[1]

    for name in ("fit", "train_epoch", "save_table"):
        monkeypatch.setattr(vpkit, name, noted("save" if name == "save_table" else "train", getattr(vpkit, name)))
    for name, function in vars(vpkit.plots).items():
        if isinstance(function, FunctionType):
            monkeypatch.setattr(vpkit.plots, name, noted("draw", function))
    run(chapter, tmp_path, monkeypatch, **CHAPTERS[chapter][0])
    first, last = order.index("train"), len(order) - order[::-1].index("save")
    assert "draw" not in order[first:last]
    assert "draw" in order[last:]


def test_the_lines_in_the_text_of_chapter_3_explain_by_example(tmp_path, monkeypatch):
    for name in ("tench", "goldfish"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 40), (80 * i, 120, 40)).save(tmp_path / "photos" / name / f"{i}.png")
    (tmp_path / "results").mkdir()
    text = "\n".join(c.source for c in nbformat.read(ROOT / "notebooks" / "03_ilm_vp.ipynb", as_version=4).cells)
    (snippet,) = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    snippet = snippet.replace("PATH", str(tmp_path / "photos")).replace(
        "vpkit.analysis.exp", "found = vpkit.analysis.exp"
    )
    checked = snippet + "assert len(found) == len(chosen) and len(photos) == 6"
    run("03_ilm_vp", tmp_path / "results", monkeypatch, checked, **CHAPTERS["03_ilm_vp"][0])
