"""A training loop of one's own that goes on where it was cut off."""

import pytest
import torch

from vpkit import PromptedClassifier, train_epoch
from vpkit.mappings import identity_mapping
from vpkit.prompts import PadPrompt
from vpkit.training import History, epochs_left
from vpkit.training.checkpoint import checkpoint_file


def loop(model, images, folder, stop=None):
    torch.manual_seed(0)
    classifier = PromptedClassifier(PadPrompt(16, 2), model, identity_mapping(4))
    optimizer = torch.optim.Adam(classifier.prompt.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])
    batches, history = images.batches(16, shuffle=True), History()
    for epoch in epochs_left("a loop", classifier, optimizer, schedule, batches, 4, history, folder):
        fitted = train_epoch(classifier, batches, optimizer)
        schedule.step()
        history.add(epoch=epoch, loss=fitted.loss, lr=optimizer.param_groups[0]["lr"])
        if epoch == stop:
            raise KeyboardInterrupt
    return classifier, history


def test_a_loop_that_was_cut_off_gives_the_numbers_of_an_unbroken_one(model, image_set, tmp_path):
    whole, expected = loop(model, image_set, None)
    with pytest.raises(KeyboardInterrupt):
        loop(model, image_set, tmp_path, stop=3)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["a_loop.safetensors"]
    gone_on, history = loop(model, image_set, tmp_path)
    assert history == expected
    assert history["epoch"] == [1, 2, 3, 4]
    assert torch.equal(gone_on.prompt.pixels, whole.prompt.pixels)
    assert loop(model, image_set, tmp_path)[1] == expected  # nothing is left to do


def test_where_states_are_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("VPKIT_CHECKPOINTS", raising=False)
    assert checkpoint_file(None, "ILM") is None
    assert checkpoint_file(tmp_path / "one.safetensors", "ILM") == tmp_path / "one.safetensors"
    assert checkpoint_file(tmp_path, "VP+TP, base") == tmp_path / "VP+TP_base.safetensors"
    monkeypatch.setenv("VPKIT_CHECKPOINTS", str(tmp_path / "folder"))
    assert checkpoint_file(None, "ILM") == tmp_path / "folder" / "ILM.safetensors"
    assert checkpoint_file(None, "") is None  # two of them would share one
