"""Evaluation in TF32, as on a GPU after `vpkit.start`: the same accuracy to 0.1 points for each family of networks.

There is no GPU here, so its rounding is imitated: operands of matrix products keep 10 bits of mantissa, sums float32.
Convolutions are left as they are: cuDNN's have TF32 by torch's own default, whether `vpkit.start` was called or not.
"""

import open_clip
import pytest
import timm
import torch
from small_clip import SMALL_VIT
from torch.utils._python_dispatch import TorchDispatchMode

import vpkit
from vpkit.mappings import frequency_mapping
from vpkit.models import FrozenCLIP, FrozenModel

aten = torch.ops.aten
PRODUCTS = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.matmul, aten.linear)


class TF32(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in PRODUCTS:
            first = 1 if func.overloadpacket in (aten.addmm, aten.baddbmm) else 0  # what is added is not rounded
            args = tuple(rounded(a) if first <= i < first + 2 else a for i, a in enumerate(args))
        return func(*args, **kwargs or {})


def rounded(x):
    """To 10 bits of mantissa, to the nearest."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def test_the_imitation_rounds_as_tf32_does():
    x = torch.randn(1000)
    error = ((rounded(x) - x).abs() / x.abs()).max()
    assert 2**-12 < error <= 2**-11
    a, b = torch.randn(20, 30), torch.randn(30, 10)
    expected, plain = rounded(a) @ rounded(b), a @ b
    with TF32():
        assert torch.equal(a @ b, expected)
    assert not torch.equal(plain, expected)


def networks():
    torch.manual_seed(0)
    names = [f"class {i}" for i in range(1000)]
    for architecture in ("resnet18", "vit_tiny_patch16_224"):
        options = {"img_size": 64} if architecture.startswith("vit") else {}
        network = timm.create_model(architecture, pretrained=False, **options)
        yield architecture, FrozenModel(network, names, 64)
    yield "efficientnet_lite0", vpkit.load_frozen("efficientnet_lite0")
    clip = FrozenCLIP(open_clip.CLIP(**SMALL_VIT))
    yield "CLIP, transformer", clip.zero_shot([f"a photo of a {i}" for i in range(100)])
    tiny = vpkit.load_clip("tiny")
    yield "CLIP, ResNet", tiny.zero_shot(list(vpkit.load_dataset("icons", "test", size=32, subset=66).class_names))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*words this small model never met")
def test_accuracy_in_tf32_is_that_in_float32():
    images = vpkit.load_dataset("icons", "test", size=64, subset=1000)
    for name, model in networks():
        side = getattr(model, "image_size", 64)
        x = images.resized(side if name.startswith("CLIP") else 64)
        with torch.no_grad():
            full = torch.cat([model(batch) for batch, _ in x.batches(50)])
            with TF32():
                short = torch.cat([model(batch) for batch, _ in x.batches(50)])
        assert not torch.equal(full, short), name
        usual = full.mean(0)  # a network with random weights gives every image the same few classes
        before, after = (full - usual).argmax(1), (short - usual).argmax(1)
        counts = torch.zeros(full.shape[1], len(images.class_names), dtype=torch.int64)
        counts.index_put_((before, images.labels), torch.tensor(1), accumulate=True)
        source = frequency_mapping(counts).index[images.labels]
        accuracies = [float((found == source).float().mean()) for found in (before, after)]
        assert accuracies[0] > 2 / 66, name  # twice chance
        assert abs(accuracies[0] - accuracies[1]) < 0.0011, name  # one of 1000 images
