"""Every chapter with every method on a device that is not the CPU: nothing is mixed, and waits are counted."""

import pytest
import torch
from in_process import CHAPTERS, CLIP_CHAPTERS, methods_of, run, small_clip
from pretend_device import DEVICE, pretend_device

import vpkit
from vpkit import evaluate, train_epoch
from vpkit.datasets import image_set
from vpkit.mappings import weighted
from vpkit.methods.logoprompt import LoGoPromptClassifier, NamesAsDataClassifier

pytestmark = pytest.mark.slow
CLASSIFIERS = {"05_logoprompt": "found", "06_dpt": "learned"}  # what a chapter calls them, if not `classifiers`
LOOKED_UP = (LoGoPromptClassifier, NamesAsDataClassifier)  # which pasted images are new, the host must know


def everything(chapter):
    parameters = (CHAPTERS | CLIP_CHAPTERS)[chapter][0]
    return parameters | {"device": str(DEVICE), "methods": methods_of(chapter)}


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    monkeypatch.setattr(vpkit, "load_clip", small_clip)
    monkeypatch.setattr(weighted, "widest_float", lambda device: torch.float32)


@pytest.mark.parametrize("chapter", [*CHAPTERS, *CLIP_CHAPTERS])
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
