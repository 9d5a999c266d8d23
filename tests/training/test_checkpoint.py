import random

import numpy as np
import pytest
import torch
from conftest import small_network

import vpkit
from vpkit import PromptedClassifier, fit
from vpkit.prompts import PatchPrompt


class Stop(Exception):
    """The power goes off."""


def run(image_set, epochs=4, path=None, stop_before=None, optimizer=torch.optim.Adam, remap=True):
    """A run whose every kind of randomness matters; fresh objects each time, as in a new process."""
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    model = vpkit.models.FrozenModel(small_network(), ["x"] * 12)
    prompt = PatchPrompt(16, 8, "random")  # draws a place from torch's generator at every step
    classifier = PromptedClassifier(prompt, model, vpkit.mappings.random_mapping(12, 4))

    def before(trained, epoch):
        if epoch == stop_before:
            raise Stop
        if remap and epoch % 2 == 1:
            trained.mapping = vpkit.mappings.random_mapping(12, 4, seed=random.randrange(1000))
        return {"drawn": float(np.random.rand())}  # noqa: NPY002

    train = image_set.batches(16, shuffle=True, generator=torch.Generator().manual_seed(7))
    history = fit(
        classifier, train, image_set.batches(64), optimizer(prompt.parameters(), lr=0.1), epochs, before,
        schedule=vpkit.training.schedules.multistep, checkpoint=path,
    )  # fmt: skip
    return history, classifier


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9)])
@pytest.mark.parametrize("stop_before", [2, 3, 4])
def test_a_resumed_run_gives_the_numbers_of_an_unbroken_one(tmp_path, image_set, stop_before, optimizer):
    path = tmp_path / "run.safetensors"
    expected, unbroken = run(image_set, optimizer=optimizer)
    with pytest.raises(Stop):
        run(image_set, path=path, stop_before=stop_before, optimizer=optimizer)
    history, resumed = run(image_set, path=path, optimizer=optimizer)
    assert history == expected
    assert torch.equal(resumed.prompt.pixels, unbroken.prompt.pixels)
    assert torch.equal(resumed.mapping.index, unbroken.mapping.index)


def test_the_random_states_of_all_gpus_come_back(tmp_path, image_set, monkeypatch):
    """A patch at a random place on a GPU draws it there. The stand-in has the states of two."""
    path, restored = tmp_path / "run.safetensors", {}
    states = [torch.arange(16, dtype=torch.uint8), torch.arange(16, 32, dtype=torch.uint8)]
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)  # one more than when the run began
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.update({device: state}))
    with pytest.raises(Stop):
        run(image_set, path=path, stop_before=2)
    run(image_set, path=path)
    assert list(restored) == [0, 1]
    assert all(torch.equal(restored[i], states[i]) for i in (0, 1))


def test_a_finished_run_is_not_run_again(tmp_path, image_set):
    path = tmp_path / "run.safetensors"
    first, trained = run(image_set, path=path)
    again, loaded = run(image_set, path=path, stop_before=1)  # would stop if any epoch ran
    assert again == first
    assert torch.equal(loaded.prompt.pixels, trained.prompt.pixels)


def test_only_what_is_learned_is_saved(tmp_path, image_set):
    from safetensors import safe_open

    run(image_set, epochs=1, path=tmp_path / "run.safetensors")
    with safe_open(tmp_path / "run.safetensors", "pt") as file:
        names = [name for name in file.keys() if name.startswith("classifier.")]  # noqa: SIM118
    assert sorted(names) == ["classifier.mapping.index", "classifier.prompt.pixels"]
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_checkpoint_of_another_run_is_refused(tmp_path, image_set):
    path = tmp_path / "run.safetensors"
    run(image_set, epochs=2, path=path)
    with pytest.raises(ValueError, match="belongs to another run \\(epochs 2, now 3\\)"):
        run(image_set, epochs=3, path=path)
    with pytest.raises(ValueError, match="steps per epoch 4, now 2"):
        run(image_set[:32], epochs=2, path=path)
    with pytest.raises(ValueError, match="optimizer Adam, now SGD"):
        run(image_set, epochs=2, path=path, optimizer=torch.optim.SGD)


def test_a_damaged_checkpoint_is_not_trusted(tmp_path, image_set):
    path = tmp_path / "run.safetensors"
    run(image_set, epochs=2, path=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a checkpoint file of vpkit, or cut short"):
        run(image_set, epochs=2, path=path)
