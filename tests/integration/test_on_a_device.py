"""Every chapter with every method on a device that is not the CPU: nothing is mixed, and waits are counted."""

import numpy as np
import open_clip
import pytest
import torch
from conftest import small_network
from in_process import BLACK_BOX, CHAPTERS, CLIP_CHAPTERS, methods_of, run, small_clip, small_frozen
from photos import coloured_photos
from pretend_device import DEVICE, pretend_device
from small_clip import SMALL_VIT

import vpkit
from vpkit import evaluate, tasks, train_epoch
from vpkit.datasets import image_set
from vpkit.mappings import weighted
from vpkit.methods.logoprompt import LoGoPromptClassifier, NamesAsDataClassifier
from vpkit.models import FrozenCLIP, FrozenModel
from vpkit.tasks.task import METHODS
from vpkit.training import loop

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter"),  # which torch says of true meta tensors
    pytest.mark.filterwarnings("ignore:.*words this small model never met"),
]
CLASSIFIERS = {"05_logoprompt": "found", "06_dpt": "learned"}  # what a chapter calls them, if not `classifiers`
LOOKED_UP = (LoGoPromptClassifier, NamesAsDataClassifier)  # which pasted images are new, the host must know


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes that differ in colour."""
    return coloured_photos(tmp_path_factory.mktemp("photos"))


def everything(chapter):
    parameters = (CHAPTERS | BLACK_BOX | CLIP_CHAPTERS)[chapter][0]
    return parameters | {"device": str(DEVICE), "methods": methods_of(chapter)}


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    monkeypatch.setattr(vpkit, "load_clip", small_clip)
    monkeypatch.setattr(weighted, "widest_float", lambda device: torch.float32)


@pytest.mark.parametrize("chapter", [*CHAPTERS, *BLACK_BOX, *CLIP_CHAPTERS])
def test_a_chapter_runs_with_sets_that_do_not_fit_the_device(chapter, tmp_path, monkeypatch):
    monkeypatch.setattr(image_set, "free_memory", lambda device: 1000)
    with pretend_device():
        assert len(run(chapter, tmp_path, monkeypatch, **everything(chapter))) > 1


@pytest.mark.parametrize("chapter", [*CHAPTERS, *CLIP_CHAPTERS])
def test_a_chapter_runs_and_each_method_waits_once_an_epoch(chapter, tmp_path, monkeypatch):
    with pretend_device() as waits:

        def count(namespace):
            classifiers = namespace[CLASSIFIERS.get(chapter, "classifiers")]
            for method, classifier in classifiers.items():
                learned = [p for p in classifier.parameters() if p.requires_grad]
                batches = namespace["train"].batches(2)
                assert len(batches) >= 5
                steps = len(batches) if isinstance(classifier, LOOKED_UP) else 0
                if learned:
                    waits.clear()
                    train_epoch(classifier, batches, torch.optim.SGD(learned, lr=0.0))
                    assert waits.total() <= 1 + steps, (method, waits)
                waits.clear()
                evaluate(classifier, namespace["test"].batches(2))
                assert waits.total() <= 2 + 2 * steps, (method, waits)

        found = run(chapter, tmp_path, monkeypatch, count, **everything(chapter))
    assert len(found) > 1


@pytest.mark.parametrize("chapter", ["05_logoprompt", "06_dpt"])
def test_a_chapter_runs_with_augmented_images(chapter, tmp_path, monkeypatch):
    with pretend_device():
        assert len(run(chapter, tmp_path, monkeypatch, **everything(chapter), augment=True)) > 1


@pytest.mark.parametrize("chapter", [*CHAPTERS, *BLACK_BOX, *CLIP_CHAPTERS])
def test_a_chapter_runs_in_bf16(chapter, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_autocast_dtype", lambda device: torch.bfloat16)
    assert len(run(chapter, tmp_path, monkeypatch, **everything(chapter) | {"device": "cpu"})) > 1


def test_models_are_made_of_networks_that_were_moved_before():
    with pretend_device():
        clip = FrozenCLIP(open_clip.CLIP(**SMALL_VIT).to(DEVICE))
        assert clip.encode_text(["a cat"]).device.type == DEVICE.type
        model = FrozenModel(small_network(5).to(DEVICE), list("abcde"), 32)
        assert model(torch.rand(2, 3, 32, 32).to(DEVICE)).shape == (2, 5)


@pytest.mark.parametrize(
    ("method", "model"),
    [(method, "tiny-vit") for method in METHODS]
    + [(method, "efficientnet_lite0") for method in ("unprompted", "GDA", "linear probe", "prompt")],
)
def test_a_task_is_fitted_saved_loaded_and_reported(method, model, folder, tmp_path):
    image_size = 112 if model == "efficientnet_lite0" else 96
    train, val, test = (
        vpkit.load_dataset(f"folder:{folder}", split, size=image_size) for split in ("train", "val", "test")
    )
    with pretend_device():
        task = tasks.fit_task(train, val, model, method=method, epochs=1, device=DEVICE)
        tasks.save_task(tmp_path / "task.safetensors", task, folder="photos")
        loaded, card = tasks.load_task(tmp_path / "task.safetensors", DEVICE)
        paths = sorted(folder.glob("*/1*.png"))
        there = [tasks.predict_images(one, paths)["probability"] for one in (task, loaded)]
        assert np.allclose(*there, atol=1e-4)
        assert tasks.write_report(tmp_path / "report.html", loaded, test, card)
    here = tasks.predict_images(tasks.load_task(tmp_path / "task.safetensors")[0], paths)["probability"]
    assert np.allclose(here, there[0], atol=1e-4)


def test_a_chapter_with_photos_of_ones_own(tmp_path, folder, monkeypatch):
    small = {"dataset": str(folder), "image_size": 32, "canvas_size": 32, "prompt_size": 4, "epochs": 1}
    monkeypatch.setattr(vpkit.tasks.task, "load_frozen", small_frozen)
    with pretend_device():
        assert len(run("09_your_own_task", tmp_path, monkeypatch, **small, device=str(DEVICE))) == 3
