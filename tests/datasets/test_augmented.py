"""Random crops and flips before the frozen tower, in place of a cache behind it."""

from functools import partial

import open_clip
import pytest
import torch
from small_clip import SMALL, SMALL_VIT

from vpkit.datasets import ImageSet
from vpkit.datasets.encoded_set import crop_and_flip
from vpkit.methods import NamePastedImages
from vpkit.models import FrozenCLIP
from vpkit.prompts import cache_patches

NAMES = ("cat", "dog", "cow")


@pytest.fixture
def images():
    torch.manual_seed(0)
    return ImageSet(torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8), torch.arange(7) % 3, NAMES)


def gradient():
    """(1, 3, 32, 32): red grows to the right from 0 to 1, green downwards."""
    steps = torch.linspace(0, 1, 32)
    return torch.stack([steps.expand(32, 32), steps[:, None].expand(32, 32), torch.zeros(32, 32)])[None]


def test_a_crop_is_a_part_of_its_image_mirrored_every_other_time():
    torch.manual_seed(0)
    found = crop_and_flip(gradient().expand(400, -1, -1, -1))
    assert found.shape == (400, 3, 32, 32)
    assert found.min() >= 0
    assert found.max() <= 1
    width = found[:, 0, 16, -1] - found[:, 0, 16, 0]  # of the crop, as a share; below 0 where it is mirrored
    height = found[:, 1, -1, 16] - found[:, 1, 0, 16]
    assert 0.4 < (width < 0).float().mean() < 0.6
    area = width.abs() * height
    assert area.min() < 0.15
    assert area.max() > 0.8
    assert (height > 0).all()  # never upside down
    assert len({round(float(value), 3) for value in width}) > 50  # of whole pixels; each image gets its own


def test_batches_are_made_anew_in_each_pass_and_inputs_stay_plain(images):
    torch.manual_seed(0)
    for clip, encoded in (
        (FrozenCLIP(open_clip.CLIP(**SMALL_VIT)), cache_patches),
        (FrozenCLIP(open_clip.CLIP(**SMALL)), partial(NamePastedImages, ratio=0.5)),
    ):
        plain, split = encoded(clip, images), encoded(clip, images, augment=True)
        side = {"plain": lambda x: x.plain, "features": lambda x: x.features}
        features = side["plain" if encoded is cache_patches else "features"]
        assert torch.equal(features(plain.inputs), features(split.inputs))
        batches = split.batches(4)
        assert len(batches) == 2
        assert batches.class_names == NAMES
        passes = [list(batches) for _ in range(2)]
        for both in passes:
            assert torch.cat([labels for _, labels in both]).equal(images.labels)
        first, second = (torch.cat([features(x) for x, _ in both]) for both in passes)
        assert not torch.allclose(first, second)
        assert not torch.allclose(first, features(plain.inputs))
        assert not first.requires_grad


def test_names_are_pasted_on_the_augmented_images_at_new_places(images):
    torch.manual_seed(0)
    clip = FrozenCLIP(open_clip.CLIP(**SMALL))
    split = NamePastedImages(clip, images, ratio=0.5, augment=True)
    x, labels = next(iter(split.batches(7)))
    found = x.with_names(labels[:, None])[:, 0]
    strip = split.strips[labels].float() / 255
    for i in range(7):
        top = int(x.pairs.tops[i])
        pasted = x.pixels[i].clone()
        pasted[:, top : top + strip.shape[2]] = strip[i]
        assert torch.allclose(clip.encode_image(pasted[None])[0], found[i], atol=1e-5)
    assert not torch.equal(x.pairs.tops, split.inputs.pairs.tops)
    part = x[2:4]  # a batch in parts
    assert torch.allclose(part.with_names(labels[2:4, None])[:, 0], found[2:4], atol=1e-6)
