"""Loaders and datasets of one's own: any iterable of batches, and any torch Dataset."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import vpkit
from vpkit.datasets import labelled
from vpkit.mappings import count_predictions, identity_mapping
from vpkit.methods import linear_probe, remap
from vpkit.models import FrozenModel
from vpkit.prompts import PadPrompt

NAMES = ("red", "green", "blue")


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 3
    images = torch.randint(0, 60, (24, 3, 16, 16), generator=generator, dtype=torch.uint8)
    images[torch.arange(24), labels] += 150
    return images, labels


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 8))
    return FrozenModel(network, [f"source {s}" for s in range(8)], image_size=16)


def classifier_on(model):
    torch.manual_seed(0)
    return vpkit.PromptedClassifier(PadPrompt(16, 2), model, identity_mapping(3))


@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_a_loader_gives_what_an_image_set_gives(tensors, model, kind):
    images, labels = tensors
    loader = DataLoader(TensorDataset(images if kind == "bytes" else images / 255, labels), 8)
    ours, theirs = vpkit.ImageSet(*tensors, NAMES).batches(8), labelled(loader, NAMES)
    assert torch.equal(count_predictions(model, nn.Identity(), ours), count_predictions(model, nn.Identity(), theirs))
    found = []
    for batches in (ours, theirs):
        classifier = classifier_on(model)
        optimizer = torch.optim.SGD(classifier.prompt.parameters(), lr=1.0)
        history = vpkit.fit(classifier, batches, batches, optimizer, 2, remap(batches), show=False)
        found.append((history.rows, vpkit.evaluate(classifier, batches).confusion.tolist()))
    assert found[0] == found[1]
    probe = linear_probe(model, theirs, theirs)
    assert vpkit.evaluate(probe, theirs).accuracy == vpkit.evaluate(probe, ours).accuracy == 1.0


def test_fit_and_evaluate_take_a_plain_loader(tensors, model):
    loader = DataLoader(TensorDataset(tensors[0] / 255, tensors[1]), 8)
    classifier = classifier_on(model)
    optimizer = torch.optim.SGD(classifier.prompt.parameters(), lr=1.0)
    vpkit.fit(classifier, loader, loader, optimizer, 1, show=False)
    assert vpkit.evaluate(classifier, loader).n == 24
    listed = [(tensors[0] / 255, tensors[1])]
    assert vpkit.evaluate(classifier, listed).accuracy == vpkit.evaluate(classifier, loader).accuracy


def test_labels_without_a_name_are_refused(tensors):
    loader = DataLoader(TensorDataset(tensors[0], tensors[1] + 1), 24)
    with pytest.raises(ValueError, match=r"labels \[1, 2, 3\], but there are 3 class names: expected 0..2"):
        list(labelled(loader, NAMES))


class Pictures(torch.utils.data.Dataset):
    classes = NAMES

    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, i):
        return self.pairs[i]


@pytest.mark.parametrize("kind", ["PIL", "bytes", "floats"])
def test_a_dataset_becomes_an_image_set(tensors, kind):
    images, labels = tensors
    convert = {
        "PIL": lambda x: Image.fromarray(x.permute(1, 2, 0).numpy()), "bytes": lambda x: x, "floats": lambda x: x / 255,
    }[kind]  # fmt: skip
    pictures = Pictures([(convert(x), int(y)) for x, y in zip(images, labels, strict=True)])
    found = vpkit.ImageSet.from_dataset(pictures)
    assert torch.equal(found.images, images)
    assert torch.equal(found.labels, labels)
    assert (found.class_names, found.name) == (NAMES, "Pictures")


def test_datasets_that_are_no_image_sets_are_refused():
    grey = np.zeros((8, 9), np.uint8)
    for pairs, options, message in (
        ([(Image.fromarray(grey), 0)], {}, "9 x 8 px: give size="),
        ([(torch.zeros(3, 8, 8), 0), (torch.zeros(3, 9, 9), 1)], {}, "images of 2 shapes"),
        ([(torch.zeros(3, 8, 8) - 1, 0)], {}, r"runs from -1 to -1: expected \[0, 1\]; leave Normalize out"),
        ([(torch.zeros(8, 8), 0)], {}, r"an image is \(8, 8\): expected a PIL image"),
        ([(torch.zeros(3, 8, 8), 5)], {}, "labels run from 5 to 5"),
    ):
        with pytest.raises(ValueError, match=message):
            vpkit.ImageSet.from_dataset(Pictures(pairs), **options)
    with pytest.raises(ValueError, match="TensorDataset has no `classes`"):
        vpkit.ImageSet.from_dataset(TensorDataset(torch.zeros(1, 3, 8, 8), torch.zeros(1)))
    assert vpkit.ImageSet.from_dataset(Pictures([(Image.fromarray(grey), 0)]), size=8).shape == (1, 3, 8, 8)
