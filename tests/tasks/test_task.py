"""From a folder of images to a saved prompt, its predictions and its report; in Python and from the shell."""

import json
import re
from functools import partial
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from photos import coloured_photos
from PIL import Image
from safetensors.torch import load_file, save_file

import vpkit
from vpkit.tasks.files import load_task, save_task
from vpkit.tasks.report import write_report
from vpkit.tasks.task import choose_task, fit_task, predict_images, probabilities_of, reading_size

QUICK = {"canvas_size": 64, "epochs": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes that differ in colour; one has a name that is HTML."""
    return coloured_photos(tmp_path_factory.mktemp("photos"), ("blue_sky", "grass & <b>trees", "red_wall"), each=20)


@pytest.fixture(scope="module")
def splits(folder):
    return [vpkit.load_dataset(f"folder:{folder}", split, size=64) for split in ("train", "val", "test")]


@pytest.fixture(scope="module")
def task(splits):
    torch.manual_seed(0)
    return fit_task(*splits[:2], **QUICK | {"epochs": 3})


def test_it_learns_and_validation_is_that_of_its_last_epoch(task, splits):
    assert task.settings["image_size"] == 44
    assert task.val_accuracy == task.history["val_accuracy"][-1]
    assert vpkit.evaluate(task.classifier, task.sized(splits[1]).batches(8)).accuracy == task.val_accuracy
    assert task.history["train_loss"][-1] < task.history["train_loss"][0]


def test_the_best_on_validation_is_chosen_and_ties_go_to_the_first(splits):
    options = [{"mapping": "FLM", "prompt": "frame"}, {"mapping": "BLM+"}, {"mapping": "ILM"}]
    best, table = choose_task(*splits[:2], options, **QUICK)
    assert table["method"].tolist() == ["FLM, frame", "BLM+, border", "ILM, border"]
    assert best.name == table["method"][table["val_accuracy"].argmax()]
    assert best.val_accuracy == table["val_accuracy"].max()
    assert ((table["low"] <= table["val_accuracy"]) & (table["val_accuracy"] <= table["high"])).all()
    assert table["learned"].tolist() == [3 * (64**2 - 44**2)] * 3


@pytest.mark.parametrize(("mapping", "prompt"), [("ILM", "border"), ("BLM+", "frame")])
def test_a_saved_task_predicts_the_same_when_loaded(tmp_path, splits, folder, mapping, prompt):
    task = fit_task(*splits[:2], mapping=mapping, prompt=prompt, **QUICK)
    path = save_task(tmp_path / "prompt.safetensors", task, folder="photos")
    loaded, card = load_task(path)
    paths = sorted(folder.glob("*/1*.png"))
    before, after = predict_images(task, paths, batch_size=4), predict_images(loaded, paths)
    assert before["predicted"].tolist() == after["predicted"].tolist()
    assert np.allclose(before["probability"], after["probability"], atol=1e-5)
    assert loaded.class_names == ("blue sky", "grass & <b>trees", "red wall")
    assert card["folder"] == "photos"
    read = json.loads(path.with_suffix(".json").read_text())
    assert read["settings"]["mapping"] == mapping
    assert len(read["source_classes"]["red wall"]) == (1 if mapping == "ILM" else 3)


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["border", "frame"])
def test_files_are_asked_about_the_pixels_that_were_trained_on(tmp_path, prompt):
    """Photos larger than what is kept of them: read at one size for fit, predict and report, then resized alike."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(("fine", "coarse")):
        (tmp_path / name).mkdir()
        for i in range(14):
            grain = rng.integers(0, 256, (120 // (1 + 2 * k), 120 // (1 + 2 * k), 3), dtype=np.uint8)
            Image.fromarray(grain).resize((300, 300)).save(tmp_path / name / f"{i:02}.png")
    load = partial(vpkit.load_dataset, f"folder:{tmp_path}", size=100)
    task = fit_task(load("train"), load("val"), prompt=prompt, **QUICK)
    assert task.settings["read_size"] == 100
    whole = load("all")
    expected = probabilities_of(task, task.sized(whole).images).max(1)
    files = [tmp_path / name / f"{i:02}.png" for name in whole.class_names for i in range(14)]
    found = predict_images(task, files, batch_size=3)
    assert np.allclose(found.probability, expected.values, atol=1e-5)
    assert found.predicted.tolist() == [whole.class_names[t] for t in expected.indices]
    save_task(tmp_path / "prompt.safetensors", task)
    assert load_task(tmp_path / "prompt.safetensors")[0].settings["read_size"] == 100


def test_thumbnails_are_not_enlarged_for_a_prompt(splits):
    with pytest.raises(ValueError, match="images of 64 px, but this prompt takes 96 px: load them with size=96"):
        fit_task(*splits[:2], prompt="frame", canvas_size=96)


@pytest.mark.parametrize(("model", "side"), [("efficientnet_lite0", 160), ("tiny", 160)])
def test_the_command_reads_images_large_enough_for_its_model(model, side):
    assert reading_size(model) == side


def test_a_large_clip_gets_large_images(monkeypatch):
    monkeypatch.setattr("vpkit.tasks.task.load_clip", lambda name: SimpleNamespace(image_size=224))
    assert reading_size("ViT-B-32") == 224


def test_clip_reads_sentences_of_the_folders_names(splits):
    icons = [vpkit.load_dataset("icons", split, size=96).select_classes("star", "heart") for split in ("train", "val")]
    task = fit_task(icons[0][::8], icons[1][::4], model="tiny", mapping="FLM", prompt="frame", epochs=1)
    assert len(task.classifier.model.class_names) == 2 * 81
    assert ["heart" in names[0] or "star" in names[0] for names in task.source_classes()] == [True, True]


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_file_that_says_what_is_true(tmp_path, task, splits):
    path = write_report(tmp_path / "report.html", task, splits[2], {"note": "</pre><script>alert(1)</script>"})
    page = Page(path.read_text(encoding="utf-8"))
    found = vpkit.evaluate(task.classifier, task.sized(splits[2]).batches(64))
    assert f"{100 * found.accuracy:.1f} %" in page.text
    assert "grass & <b>trees" in page.text
    assert "b" not in page.tags
    assert "script" not in page.tags
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    wrong = found.n - int(found.confusion.trace())
    assert page.tags.count("figure") == 2 + min(wrong, 12)
    with pytest.raises(ValueError, match="the test images have the classes"):
        write_report(path, task, splits[2].select_classes("blue sky", "red wall"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mapping": "best"}, "unknown mapping 'best': expected one of FLM, FLM soft, ILM"),
        ({"prompt": "circle"}, "unknown prompt 'circle': expected one of border, frame"),
        ({"model": "gpt"}, "unknown model 'gpt'"),
        ({"canvas_size": 64, "prompt_size": 32}, "prompt_size=32: expected 1..31 on a 64 px canvas"),
    ],
)
def test_wrong_options_are_refused(splits, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fit_task(*splits[:2], **options)


def test_nothing_to_choose_from(splits):
    with pytest.raises(ValueError, match="options is empty"):
        choose_task(*splits[:2], [])


def test_files_that_are_no_tasks_are_refused(tmp_path, task):
    path = save_task(tmp_path / "prompt.safetensors", task)
    whole = path.read_bytes()
    with pytest.raises(ValueError, match=r"ending in \.safetensors"):
        save_task(tmp_path / "prompt.bin", task)
    with pytest.raises(FileNotFoundError, match="no such prompt file"):
        load_task(tmp_path / "none.safetensors")
    other = tmp_path / "other.safetensors"
    for content in (b"", b"nonsense", whole[: len(whole) // 2]):
        other.write_bytes(content)
        with pytest.raises(ValueError, match=r"not a (prompt file of|task saved by) vpkit"):
            load_task(other)
    tensors = load_file(path)
    save_file(tensors, other)
    with pytest.raises(ValueError, match=r"not a (prompt file of|task saved by) vpkit"):
        load_task(other)
    tensors["mapping.index"] = torch.arange(2)
    card = json.loads(path.with_suffix(".json").read_text())
    save_file(tensors, other, metadata={"card": json.dumps(card), "prompt": "x"})
    with pytest.raises(ValueError, match="what it holds does not fit 3 classes"):
        load_task(other)


@pytest.mark.parametrize("method", ["GDA", "linear probe", "prompt", "unprompted"])
def test_a_network_of_ones_own_is_fitted_and_has_to_be_given_again(method, splits, tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, 4), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(32, 20)
    )
    model = vpkit.models.FrozenModel(network, [f"source {s}" for s in range(20)], image_size=48)
    task = fit_task(*splits[:2], model, method=method, epochs=1)
    assert task.settings["canvas_size"] == 48
    path = save_task(tmp_path / "own.safetensors", task)
    loaded, card = load_task(path, model=model)
    assert vpkit.evaluate(loaded.classifier, task.sized(splits[1]).batches(64)).accuracy == card["val_accuracy"]
    with pytest.raises(ValueError, match=r"a model of your own: give it, load_task\(path, model=...\)"):
        load_task(path)
    with pytest.raises(ValueError, match=r"model is a Sequential: wrap it.*FrozenModel\(network, class_names"):
        fit_task(*splits[:2], network)
    with pytest.raises(ValueError, match="a model of your own reads no text: CoOp needs one of tiny"):
        fit_task(*splits[:2], model, method="CoOp")
