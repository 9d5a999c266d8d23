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
import open_clip
import pytest
import torch
from conftest import small_network
from PIL import Image
from small_clip import SMALL_VIT
from timm import get_pretrained_cfg
from timm.data import ImageNetInfo, infer_imagenet_subset

import vpkit
from vpkit.book.parameters import chapter_parameters
from vpkit.imagenet_names import imagenet_class_names
from vpkit.models import CLIP_MODELS, FROZEN_MODELS, FrozenCLIP, FrozenModel
from vpkit.models.hub import build_timm

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SMALL = {"canvas_size": 32, "prompt_size": 8, "epochs": 1, "device": "cpu"}
TEN = {"dataset": "digits", "n_train": 30, "n_test": 20}


def methods_of(chapter: str) -> list[str]:
    return chapter_parameters(chapter)["methods"]["items"]["enum"]


# A line for each chapter: its smallest parameters, all its methods, all its models.
CHAPTERS = {
    "01_visual_prompting": (
        {**SMALL, "image_size": 16, "n_train": 30, "n_test": 20},
        methods_of("01_visual_prompting"),
        list(FROZEN_MODELS),
    ),
    "02_label_mapping": (SMALL | TEN, methods_of("02_label_mapping"), list(FROZEN_MODELS)),
    "03_ilm_vp": (
        SMALL | TEN,
        methods_of("03_ilm_vp"),
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


CLIP_TEN = {"dataset": "digits", "n_train": 30, "n_test": 20, "epochs": 1, "device": "cpu"}
CLIP_CHAPTERS = {  # smallest parameters, and for each of `methods` the rows it gives
    "04_clip_template_mapping": (
        {**CLIP_TEN, "prompt_size": 4},
        {"linear probe": ["linear probe"], "full fine-tuning": ["full fine-tuning"]},
    ),
    "05_logoprompt": (
        {**CLIP_TEN, "shots": 1, "num_candidates": 2, "strip_ratio": 0.4},
        {
            "base to new": ["LoGoPrompt, first stage", "LoGoPrompt, first stage, not pasted"],
            "Table 4a": ["names as images", "names pasted"],
            "two stages": ["LoGoPrompt, first stage", "LoGoPrompt, two stages"],
            "CoCoOp": ["CoCoOp"],
            "VP+TP": ["VP+TP"],
            "tunable": ["LoGoPrompt tunable"],
        },
    ),
    "06_dpt": (
        {**CLIP_TEN, "shots": 1, "num_tokens": 2, "candidates": 2, "aware_blocks": [3], "pair_methods": ["DPT"]},
        {method: [method] for method in ("CoOp", "VPT shallow", "VPT", "VLP", "DPT")},
    ),
}


def test_every_declared_method_is_run():
    assert all(list(rows) == methods_of(chapter) for chapter, (_, rows) in CLIP_CHAPTERS.items())


def small_clip(model, device=None, **options) -> FrozenCLIP:
    assert model in CLIP_MODELS
    torch.manual_seed(0)
    return FrozenCLIP(open_clip.CLIP(**SMALL_VIT))


def clip_subsets():
    for chapter, (_, methods) in CLIP_CHAPTERS.items():
        for chosen in ([], *([method] for method in methods), list(methods)):
            label = " ".join(chosen) if len(chosen) < 2 else "all"
            yield pytest.param(chapter, chosen, id=f"{chapter}-{label or 'none'}")


@pytest.mark.parametrize(("chapter", "methods"), list(clip_subsets()))
def test_a_chapter_on_clip_runs_with_each_of_its_methods(chapter, methods, tmp_path, monkeypatch):
    monkeypatch.setattr(vpkit, "load_clip", small_clip)
    parameters, rows = CLIP_CHAPTERS[chapter]
    found = run(chapter, tmp_path, monkeypatch, **parameters, methods=methods)
    assert {row for method in methods for row in rows[method]} < set(found)
    assert "zero-shot" in found


@pytest.mark.parametrize("new_methods", [["CoOp"], ["VPT", "DPT"]])
def test_chapter_6_tests_new_classes(new_methods, tmp_path, monkeypatch):
    monkeypatch.setattr(vpkit, "load_clip", small_clip)
    parameters = CLIP_CHAPTERS["06_dpt"][0] | {"pair_methods": [], "new_methods": new_methods, "methods": ["VPT"]}
    found = run("06_dpt", tmp_path, monkeypatch, **parameters)
    assert all(0 <= found[method]["metrics"]["H"] <= 1 for method in ("zero-shot", *new_methods))


@pytest.mark.parametrize("model", CLIP_MODELS)
@pytest.mark.parametrize("chapter", CLIP_CHAPTERS)
def test_a_chapter_on_clip_runs_with_every_model(chapter, model, tmp_path, monkeypatch):
    monkeypatch.setattr(vpkit, "load_clip", small_clip)
    assert run(chapter, tmp_path, monkeypatch, **CLIP_CHAPTERS[chapter][0], model=model, methods=[])


def test_chapter_4_shows_classes_that_have_a_test_image(tmp_path, monkeypatch):
    load = vpkit.load_dataset

    def without_the_first(name, split, **options):
        images = load(name, split, **options)
        return images[images.labels > 0] if split == "test" else images

    monkeypatch.setattr(vpkit, "load_clip", small_clip)
    monkeypatch.setattr(vpkit, "load_dataset", without_the_first)
    chapter = "04_clip_template_mapping"
    found = run(chapter, tmp_path, monkeypatch, **CLIP_CHAPTERS[chapter][0], methods=[])
    assert set(found) == {"zero-shot", "VP+TP", "VP+TP+LM"}


@pytest.mark.parametrize("chapter", [*CHAPTERS, *CLIP_CHAPTERS])
def test_no_figure_comes_between_training_and_saving(chapter, tmp_path, monkeypatch):
    """So that one that cannot be drawn loses no run."""
    monkeypatch.setattr(vpkit, "load_clip", small_clip)
    order = []

    def noted(what, function):
        return lambda *args, **options: (order.append(what), function(*args, **options))[1]

    for name in ("fit", "train_epoch", "save_table"):
        monkeypatch.setattr(vpkit, name, noted("save" if name == "save_table" else "train", getattr(vpkit, name)))
    for name, function in vars(vpkit.plots).items():
        if isinstance(function, FunctionType):
            monkeypatch.setattr(vpkit.plots, name, noted("draw", function))
    run(chapter, tmp_path, monkeypatch, **(CHAPTERS | CLIP_CHAPTERS)[chapter][0])
    first, last = order.index("train"), len(order) - order[::-1].index("save")
    assert "draw" not in order[first:last]
    assert "draw" in order[last:]
