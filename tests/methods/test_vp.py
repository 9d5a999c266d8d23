"""What `PromptedClassifier` holds is frozen, whatever it is given."""

from copy import deepcopy

import pytest
import torch
from torch import nn

import vpkit
from vpkit import ImageSet, PromptedClassifier
from vpkit.mappings import identity_mapping
from vpkit.models import FrozenModel
from vpkit.prompts import PadPrompt

NAMES = ("a", "b", "c")


def network():
    """What moves in training: weights, BatchNorm's statistics, dropout."""
    torch.manual_seed(0)
    convolution = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    return nn.Sequential(convolution, nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 6))


@pytest.fixture
def image_set():
    images = torch.randint(256, (24, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageSet(images, torch.arange(24) % 3, NAMES)


def test_a_plain_network_is_frozen_and_the_callers_is_left_alone(image_set):
    given = network().train()
    before = deepcopy(given.state_dict())
    classifier = PromptedClassifier(PadPrompt(16, 2), given, identity_mapping(3))
    optimizer = torch.optim.SGD(classifier.parameters(), lr=10.0)
    held = deepcopy(classifier.model.state_dict())
    batches = image_set.batches(8, shuffle=True), image_set.batches(8)
    history = vpkit.fit(classifier, *batches, optimizer, 2, show=False)
    assert history["train_loss"][0] != history["train_loss"][1]
    assert vpkit.count_parameters(classifier) == 3 * (16**2 - 12**2)
    assert all(torch.equal(value, held[name]) for name, value in classifier.model.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items())
    assert given.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in given.parameters())
    images = torch.rand(4, 3, 16, 16)
    assert torch.equal(classifier.train()(images), classifier(images))  # no dropout


def test_what_is_frozen_already_is_not_copied():
    model = FrozenModel(network(), [f"source {s}" for s in range(6)], image_size=16)
    classifier = PromptedClassifier(PadPrompt(16, 2), model, identity_mapping(3))
    assert classifier.model is model
    assert deepcopy(classifier).model is model
    assert set(classifier.state_dict()) == {"prompt.pixels", "mapping.index"}
    assert classifier.to("meta").model.mean.is_meta


def test_fine_tuning_stays_trainable_and_its_result_can_be_prompted(image_set):
    model = FrozenModel(network(), [f"source {s}" for s in range(6)], image_size=16)
    tuned = vpkit.methods.FineTuned(model, 3)
    assert vpkit.count_parameters(tuned) > 0
    prompted = PromptedClassifier(PadPrompt(16, 2), tuned.model, identity_mapping(3))
    assert vpkit.count_parameters(prompted.model) == 0
    assert vpkit.count_parameters(tuned) > 0
