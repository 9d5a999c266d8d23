"""Chapters executed in this process, without a kernel, on a few small images and small networks with random weights."""

import ast
import json
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import open_clip
import torch
from conftest import small_network
from small_clip import SMALL_VIT
from timm import get_pretrained_cfg
from timm.data import ImageNetInfo, infer_imagenet_subset

import vpkit
from vpkit.book.parameters import chapter_parameters
from vpkit.imagenet_names import imagenet_class_names
from vpkit.models import CLIP_MODELS, FROZEN_MODELS, FrozenCLIP, FrozenModel
from vpkit.models.hub import build_timm

ROOT = Path(__file__).resolve().parents[1]
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


BLACK_BOX = {  # the same of the chapter that asks; SPSA, CMA-ES and linear maps need budgets
    "07_behind_an_interface": (
        {**TEN, "image_size": 32, "budget": 900, "batch_size": 8, "n_val": 20, "epochs": 1, "device": "cpu"},
        methods_of("07_behind_an_interface"),
        ["white-box prompt", "SMM", "linear probe"],
    ),
}
CLIP_TEN = {"dataset": "digits", "n_train": 30, "n_test": 20, "epochs": 1, "device": "cpu"}
CLIP_CHAPTERS = {  # smallest parameters, and for each of `methods` the rows it gives
    "04_clip_template_mapping": (
        {**CLIP_TEN, "prompt_size": 4},
        {method: [method] for method in ("VP+TP", "VP+TP+LM", "TP+LM", "linear probe", "full fine-tuning")},
    ),
    "05_logoprompt": (
        {**CLIP_TEN, "shots": 1, "num_candidates": 2, "strip_ratio": 0.4, "new_epochs": 1, "without": []},
        {
            "base to new": ["LoGoPrompt, first stage", "LoGoPrompt, first stage, not pasted"],
            "KgCoOp": [],
            "controls": ["linear probe", "GDA", "ZS-LP", "CLAP"],
            "Table 4a": ["names as images", "names pasted"],
            "two stages": ["LoGoPrompt, first stage", "LoGoPrompt, two stages"],
            "CoCoOp": ["CoCoOp"],
            "VP+TP": ["VP+TP"],
            "tunable": ["LoGoPrompt tunable"],
        },
    ),
    "06_dpt": (
        {**CLIP_TEN, "shots": 1, "num_tokens": 2, "candidates": 2, "aware_blocks": [3], "pair_methods": ["DPT"]},
        {method: [method] for method in ("CoOp", "KgCoOp", "VPT shallow", "VPT", "VLP", "DPT", "PromptSRC")}
        | {"controls": ["linear probe", "GDA", "CLAP"]},
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
    return FrozenModel(small_network(len(names)), names, image_size=32).to(device)


def run(chapter: str, folder: Path, monkeypatch, then="", **parameters) -> dict[str, dict]:
    """The code cells of `chapter`, what they show rendered, `then` more code, or a function of the names the chapter
    has made; returns the saved runs by method."""
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
    then(namespace) if callable(then) else exec(then, namespace)
    plt.close("all")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    return {record["method"]: record for record in records}


def rendered(shown) -> None:
    """A table is only computed when it is shown."""
    getattr(shown, "_repr_html_", lambda: None)()


def small_clip(model, device=None, **options) -> FrozenCLIP:
    assert model in CLIP_MODELS
    torch.manual_seed(0)
    return FrozenCLIP(open_clip.CLIP(**SMALL_VIT)).to(device)
