"""Small real things: a network with the shapes of the real one, every size shrunk."""

import os

import pytest
import torch
from torch import nn

import vpkit


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=3, help="random moments at which each interrupted job is killed")
    parser.addoption("--megabytes", type=int, help="size of the data set that has to be streamed")
    parser.addoption("--kills-table", help="CSV file to which each of them adds a row")


@pytest.fixture
def kills(request):
    return request.config.getoption("--kills")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Tests neither read nor fill the user's cache; those that run side by side share one."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VPKIT_CACHE", str(folder / "cache"))
        yield


def pytest_collection_modifyitems(items):
    """The slow ones first: side by side, a long one that begins last would be waited for alone."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)  # stable


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small_network(num_source: int = 12) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, num_source),
    )  # fmt: skip


@pytest.fixture
def model():
    return vpkit.models.FrozenModel(small_network(), [f"source {s}" for s in range(12)], image_size=16)


@pytest.fixture
def image_set():
    """64 images of four classes that differ in their mean colour, so that there is something to learn."""
    labels = torch.arange(64) % 4
    base = torch.tensor([[200, 40, 40], [40, 200, 40], [40, 40, 200], [180, 180, 180]])[labels]
    noise = torch.randint(-30, 31, (64, 3, 16, 16))
    images = (base[:, :, None, None] + noise).clamp(0, 255).byte()
    return vpkit.ImageSet(images, labels, ("red", "green", "blue", "white"), "colours", "train")


def check_row(model, row):
    images = torch.rand(2, 3, row.smallest_image, row.smallest_image)
    with torch.no_grad():
        logits = model(images)
        features = model.features(images)
    assert logits.shape == (2, row.classes)
    assert len(set(model.class_names)) > 0.9 * row.classes  # a few ImageNet-21k names occur twice
    assert model.image_size == row.image_size
    assert features.shape[0] == 2
    assert features.ndim == 2
    assert not any(weight.requires_grad for weight in model.parameters())
