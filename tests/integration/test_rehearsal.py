"""The way to the papers' numbers, walked: points of the grids through the sweep, at the papers' architectures and with
the real number of classes, on a few images, one epoch. Weights (random) and archives are fetched by the chapters
themselves, with `download = True`, from a server that plays the internet.

`make rehearse` runs every notebook with every model and set of methods that a grid has; a test run takes one of each
chapter. Of a block the data set with the fewest classes is taken: the others differ in their files alone, which
test_fetch.py reads. Blocks on ImageNet alone would take hours here and are left out, by name.
"""

import json
import os
from pathlib import Path

import fakes
import open_clip
import pytest
import timm
import torch
from internet import internet, published
from safetensors.torch import save_file
from torchvision import datasets as tv
from torchvision import models

from vpkit.book.grids import Point, read_grid
from vpkit.book.session import declared_values
from vpkit.book.sweep import run_point
from vpkit.datasets import DATASETS
from vpkit.datasets.archives import archives_of
from vpkit.datasets.torchvision_sets import TORCHVISION_SETS
from vpkit.models import CLIP_MODELS, FROZEN_MODELS
from vpkit.models.clip import open_clip_file

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"epochs": 1, "n_train": 20, "n_test": 10, "batch_size": 5, "device": "cpu", "download": True}
FEWEST = ("eurosat", "cifar10")  # of ten classes, one with CoOp's split file and one without
ONE_OF_EACH = {  # chapter: model, in every test run
    "01_visual_prompting": "resnet18", "02_label_mapping": "resnet18", "03_ilm_vp": "resnet18",
    "04_clip_template_mapping": "ViT-B-32", "05_logoprompt": "RN50", "06_dpt": "ViT-B-32",
}  # fmt: skip
ASKED = ("methods", "new_methods", "without", "prompt_kind")


def blocks():
    """The first point of every notebook, model and set of methods in a grid of a paper."""
    found = {}
    for path in sorted((ROOT / "grids").glob("*.yaml")):
        for point in [] if path.stem == "offline" else read_grid(path):
            p = point.parameters
            key = point.name, p["model"], json.dumps([p.get(name) for name in ASKED])
            if p["dataset"] in FEWEST or (key not in found and path.stem == "vp_fig9"):
                found.setdefault(key, (path.stem, point))
    return found


def left_out():
    """Blocks that only ImageNet has."""
    seen, every = blocks(), set()
    for path in sorted((ROOT / "grids").glob("*.yaml")):
        for point in [] if path.stem == "offline" else read_grid(path):
            every.add((point.name, point.parameters["model"], json.dumps([point.parameters.get(n) for n in ASKED])))
    return sorted(every - set(seen))


def params():
    taken = set()
    for (chapter, model, _), (grid, point) in blocks().items():
        usual = ONE_OF_EACH[chapter] == model and chapter not in taken
        taken |= {chapter} if usual else set()
        name = f"{grid}-{chapter[:2]}-{model}-{'+'.join(point.parameters.get('methods') or ['new'])}"
        name = f"{name} {point.parameters.get('prompt_kind', '')}".strip().replace(" ", "_")
        yield pytest.param(point, id=name, marks=[] if usual else pytest.mark.rehearse)


def weights(model: str, folder: Path) -> tuple[str, bytes]:
    """A file of random weights in the published format, and its address."""
    torch.manual_seed(0)
    if model in CLIP_MODELS:
        architecture, tag = CLIP_MODELS[model][0].removeprefix("open_clip:").split("/")
        network = open_clip.create_model(architecture, pretrained=None, force_quick_gelu=True)
        url = open_clip_file(architecture, tag).url
    else:
        url = FROZEN_MODELS[model].weight_file().url
        build = FROZEN_MODELS[model].build.args[0]
        known = "download.pytorch.org" in url
        network = models.get_model(build, weights=None) if known else timm.create_model(build, pretrained=False)
        if model.startswith("bit_m"):
            torch.nn.init.normal_(network.head.fc.weight, std=0.01)
    path = folder / f"{model}.weights"
    torch.save(network.state_dict(), path) if url.endswith(".pth") else save_file(network.state_dict(), path)
    return "https://huggingface.co/" + url.split("/", 3)[3] if "/resolve/" in url else url, path.read_bytes()


def data(name: str, folder: Path, monkeypatch) -> dict[str, bytes]:
    """The archives of a few images in the published formats, with CoOp's split file where there is one."""
    there = folder / "published"
    there.mkdir()
    getattr(fakes, name)(there, monkeypatch, tv)
    wanted = archives_of(name, folder / "vpkit_data")
    files = published(name, there, wanted)
    row = TORCHVISION_SETS[name]
    if row.split_file:
        images = sorted((there / row.folder).rglob("*.jpg"))
        by_class = {c: [p for p in images if p.parent.name == c] for c in sorted({p.parent.name for p in images})}
        parts = {"train": slice(0, 3), "val": slice(3, 5), "test": slice(5, 6)}
        split = {
            part: [[f"{c}/{p.name}", k, c] for k, c in enumerate(by_class) for p in by_class[c][which]]
            for part, which in parts.items()
        }
        files[wanted[-1].url] = json.dumps(split).encode()
    return files


@pytest.mark.slow
@pytest.mark.parametrize("point", list(params()))
def test_a_block_of_a_grid_runs_from_nothing(point, tmp_path, monkeypatch):
    asked = declared_values(json.loads(point.notebook)) | point.parameters
    small = {name: value for name, value in SMALL.items() if name in asked}
    if asked["dataset"] not in FEWEST:
        small["dataset"] = "cifar10"
    small |= {name: value for name, value in {"shots": 1, "warmup_steps": 1, "shifted": []}.items() if name in asked}
    if asked.get("epochs") and "CoCoOp" in asked["methods"]:
        small["epochs"] = 6
    with internet(monkeypatch) as web:
        url, content = weights(asked["model"], tmp_path)
        web.files[url] = content
        web.files |= data(small.get("dataset", asked["dataset"]), tmp_path, monkeypatch)
        for name, folder in {
            "VPKIT_WEIGHTS": "weights",
            "VPKIT_DATA": "data",
            "VPKIT_CACHE": "cache",
            "HF_HOME": "hub",
        }.items():
            monkeypatch.setenv(name, str(tmp_path / folder))
        monkeypatch.setenv("HF_ENDPOINT", web.address)
        monkeypatch.setenv("REHEARSAL", web.address)
        beside = os.pathsep.join(filter(None, [str(Path(__file__).parent / "rehearsal"), os.environ.get("PYTHONPATH")]))
        monkeypatch.setenv("PYTHONPATH", beside)
        error = run_point(Point(point.name, point.notebook, point.parameters | small), str(tmp_path / "out"))
        assert error == ""
        assert {method for method, *_ in web.asked} >= {"GET"}
    runs = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/*.json")]
    assert {run["method"] for run in runs} >= set(point.parameters.get("methods", [])) - {"base to new"}
    classes = DATASETS[small.get("dataset", asked["dataset"])].classes
    for run in runs:
        assert run["metrics"].get("n_test", classes) == 10
        assert {s["split"]: s["rule"] for s in run["splits"]}["train"]


def test_what_is_left_out_is_named():
    assert {(chapter[:2], model) for chapter, model, _ in left_out()} <= {
        ("05", "RN50"), ("05", "ViT-B-16"), ("06", "ViT-B-16"), ("06", "ViT-B-32"),
    }  # fmt: skip
