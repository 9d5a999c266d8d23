"""Each chapter runs with each of its methods alone, with none and with all, and with every model row.

Its code cells are executed here, without a kernel, on a few small images and a small network with random weights.
"""

import re
from types import FunctionType

import nbformat
import pytest
from in_process import BLACK_BOX, CHAPTERS, CLIP_CHAPTERS, ROOT, methods_of, run, small_clip
from PIL import Image
from served import running

import vpkit
from vpkit.methods.black_box import over_http
from vpkit.models import CLIP_MODELS
from vpkit.tasks import fit_task, serve

pytestmark = pytest.mark.slow


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
    checked = snippet + "assert len(found) == 8 and len(photos) == 6"
    run("03_ilm_vp", tmp_path / "results", monkeypatch, checked, **CHAPTERS["03_ilm_vp"][0])


def test_every_declared_method_is_run():
    assert all(list(rows) == methods_of(chapter) for chapter, (_, rows) in CLIP_CHAPTERS.items())


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
    for place in (vpkit, vpkit.datasets):  # `load_splits` finds it in the second
        monkeypatch.setattr(place, "load_dataset", without_the_first)
    chapter = "04_clip_template_mapping"
    found = run(chapter, tmp_path, monkeypatch, **CLIP_CHAPTERS[chapter][0], methods=[])
    assert set(found) == {"zero-shot"}


@pytest.mark.parametrize("chapter", [*CHAPTERS, *CLIP_CHAPTERS])
def test_no_figure_comes_between_training_and_saving(chapter, tmp_path, monkeypatch):
    """So that one that cannot be drawn loses no run."""
    monkeypatch.setattr(vpkit, "load_clip", small_clip)
    order = []

    def noted(what, function):
        return lambda *args, **options: (order.append(what), function(*args, **options))[1]

    for name in ("fit", "train_epoch", "save_table"):
        monkeypatch.setattr(vpkit, name, noted("save" if name == "save_table" else "train", getattr(vpkit, name)))
    for module in ("sides", "coop", "ilm_vp", "baselines"):
        room = getattr(vpkit.methods, module)
        monkeypatch.setattr(room, "fit", noted("train", room.fit))
    for name, function in vars(vpkit.plots).items():
        if isinstance(function, FunctionType):
            monkeypatch.setattr(vpkit.plots, name, noted("draw", function))
    run(chapter, tmp_path, monkeypatch, **(CHAPTERS | CLIP_CHAPTERS)[chapter][0])
    first, last = order.index("train"), len(order) - order[::-1].index("save")
    assert "draw" not in order[first:last]
    assert "draw" in order[last:]


@pytest.mark.parametrize("told", ["scores", "top 5", "label"])
@pytest.mark.parametrize("prompt", ["coarse grid", "low rank", "waves", "frame"])
def test_the_chapter_that_asks_runs_with_every_prompt_and_answer(told, prompt, tmp_path, monkeypatch):
    (chapter, (parameters, methods, ceilings)) = next(iter(BLACK_BOX.items()))
    found = run(chapter, tmp_path, monkeypatch, **parameters, told=told, prompt=prompt, ceilings=ceilings)
    assert set(found) == {*methods, *ceilings}
    assert all(0 < found[method]["metrics"]["sent"] <= parameters["budget"] for method in methods)
    assert not any(found[method]["metrics"]["sent"] for method in ceilings)


@pytest.mark.parametrize("method", [*BLACK_BOX["07_behind_an_interface"][1], None])
def test_the_chapter_that_asks_runs_with_each_of_its_methods(method, tmp_path, monkeypatch):
    (chapter, (parameters, *_)) = next(iter(BLACK_BOX.items()))
    chosen = [method] if method else []
    found = run(chapter, tmp_path, monkeypatch, **parameters, methods=chosen, ceilings=["linear probe"])
    assert set(chosen) <= set(found)


def test_the_chapter_that_asks_runs_over_a_real_service(tmp_path, monkeypatch):
    """A task that `vpkit serve` serves, its address in place of a model: nothing but answers reaches the chapter."""
    train, val = (vpkit.load_dataset("digits", split, size=96, subset=30) for split in ("train", "val"))
    served, real = [], serve.probabilities_of

    def counted(task, images):
        served.append(len(images))
        return real(task, images)

    monkeypatch.setattr(serve, "probabilities_of", counted)
    (chapter, (parameters, methods, ceilings)) = next(iter(BLACK_BOX.items()))
    with running(serve.service(fit_task(train, val, "tiny-vit", method="GDA"))) as address:
        changed = {"model": address, "budget": 400, "methods": methods, "ceilings": ceilings}
        names = {}
        found = run(chapter, tmp_path, monkeypatch, names.update, **parameters | changed)
    assert isinstance(names["frozen"], over_http)
    assert set(found) == set(methods)  # nobody sees inside
    sent = {method: found[method]["metrics"]["sent"] for method in methods}
    paid = sum(sent.values()) - sent["SPSA-GC"]  # whose images the map on prompted ones counts, too
    tested = len(methods) * parameters["n_test"]
    assert sum(served) == paid + tested + 8 + 8 * 6  # and what is shown: a first batch, six images at each strength
    assert found["linear map"]["metrics"]["test_accuracy"] > 0.3  # chance: 0.1


@pytest.mark.parametrize("kind", ["fixed patch", "random patch"])
def test_chapter_4_runs_with_patches(kind, tmp_path, monkeypatch):
    """VP's Figures 6 and 7 on CLIP."""
    monkeypatch.setattr(vpkit, "load_clip", small_clip)
    parameters = CLIP_CHAPTERS["04_clip_template_mapping"][0] | {"prompt_size": 1, "prompt_kind": kind}
    found = run("04_clip_template_mapping", tmp_path, monkeypatch, **parameters, methods=["VP+TP", "VP+TP+LM"])
    assert found["VP+TP"]["metrics"]["parameters"] == 3
