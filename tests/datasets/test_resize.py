"""How images come to the side a model takes, against torchvision's own transforms."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

import vpkit
from vpkit.datasets.source import fitted
from vpkit.interfaces import Resize
from vpkit.models import CLIP_MODELS, FROZEN_MODELS, resize_of

BICUBIC = transforms.InterpolationMode.BICUBIC


@pytest.mark.parametrize("size", [(40, 31), (31, 40), (33, 33), (201, 47)])
@pytest.mark.parametrize(
    ("how", "theirs"),
    [
        (Resize(28, "crop", "bilinear", 32 / 28), [transforms.Resize(32), transforms.CenterCrop(28)]),
        (Resize(24, "crop", "bicubic"), [transforms.Resize(24, BICUBIC), transforms.CenterCrop(24)]),
        (Resize(24, "squash", "bicubic"), [transforms.Resize((24, 24), BICUBIC)]),
        (24, [transforms.Resize((24, 24))]),
    ],
)
def test_it_does_what_torchvision_does(how, theirs, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    assert np.array_equal(fitted(image, how), np.asarray(transforms.Compose(theirs)(image)))


def test_models_say_what_they_were_trained_with():
    assert repr(resize_of("resnet18")) == "Resize(224, 'crop', 'bilinear', 1.14286)"
    assert repr(resize_of("resnet50")) == "Resize(224, 'crop', 'bilinear', 1.03571)"  # V2: 232
    assert repr(resize_of("bit_m_r50x1")) == "Resize(224, 'crop', 'bilinear', 1.14286)"
    assert repr(resize_of("ViT-B-32")) == "Resize(224, 'crop', 'bicubic', 1)"
    assert repr(resize_of("ViT-B-16", 96)) == "Resize(96, 'crop', 'bicubic', 1)"
    assert repr(resize_of("open_clip:ViT-B-32/laion2b_s34b_b79k")) == "Resize(224, 'crop', 'bicubic', 1)"
    assert repr(resize_of("timm:resnet18.a1_in1k")) == "Resize(224, 'crop', 'bicubic', 1.05263)"
    assert resize_of("tiny").rule == resize_of("efficientnet_lite0").rule == "squash"
    for name in [*FROZEN_MODELS, *CLIP_MODELS]:
        assert resize_of(name) == (FROZEN_MODELS[name].image_size if name in FROZEN_MODELS else resize_of(name))
    for wrong in ("resnet19", "open_clip:ViT-B-32/none", "timm:none"):
        with pytest.raises(ValueError, match=r"unknown model 'resnet19'|open_clip has no|timm has no"):
            resize_of(wrong)


@pytest.mark.parametrize("arguments", [("fit",), ("crop", "nearest"), ("crop", "bilinear", 0.5)])
def test_what_it_does_not_know_is_refused(arguments):
    with pytest.raises(ValueError, match="expected 'squash' or 'crop', 'bilinear' or 'bicubic', and at least 1"):
        Resize(8, *arguments)


def test_each_way_has_a_file_of_its_own(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            pixels = np.random.default_rng(i).integers(0, 256, (30, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    squashed, cut = (vpkit.load_dataset(f"folder:{tmp_path}", "all", size=size) for size in (16, Resize(16, "crop")))
    assert squashed.shape == cut.shape == (10, 3, 16, 16)
    assert not torch.equal(squashed.images, cut.images)
    again = vpkit.load_dataset(f"folder:{tmp_path}", "all", size=Resize(16, "crop"))
    assert torch.equal(cut.images, again.images)
