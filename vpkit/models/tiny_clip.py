"""The file format of the CLIP models that ship with vpkit: safetensors, its config in the header.

fp16, and of the token table only the rows that training met; the text tower may lie in a neighbouring file.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vpkit.files import read_safetensors, write_atomically
from vpkit.models.hub import named_errors

__all__ = ["convolutional_stem", "efficientnet_stem", "load_tiny_clip", "save_tiny_clip"]


def convolutional_stem(width: int, patch_size: int, channels: int = 24, blocks: int = 2) -> nn.Sequential:
    """A patch projection that begins as CLIP's ResNets do: (B, 3, s, s) to (B, width, s / patch_size, s / patch_size).

    Takes the place of `VisionTransformer.conv1`, which is one convolution; the tokens stay what they are, one for each
    patch. Small transformers learn far sooner with it (Xiao et al. 2021), and a distilled one can take over what the
    ResNet knows: all but the last layer are the stem and the first stage of open_clip's `ModifiedResNet`.

    Args:
        channels: width of that ResNet.
        blocks: bottlenecks in its first stage.

    Raises:
        ValueError: a patch size other than 8.
    """
    from open_clip.modified_resnet import ModifiedResNet

    if patch_size != 8:
        raise ValueError(f"patch_size={patch_size}: the stem halves the side three times, so expected 8")
    resnet = ModifiedResNet([blocks, 1, 1, 1], output_dim=8, heads=1, width=channels)
    convolutions = [getattr(resnet, f"{kind}{i}") for i in (1, 2, 3) for kind in ("conv", "bn", "act")]
    return nn.Sequential(*convolutions, resnet.avgpool, resnet.layer1, nn.Conv2d(4 * channels, width, 2, 2))


def efficientnet_stem(width: int, stages: int = 3) -> nn.Sequential:
    """A patch projection that begins as EfficientNet-Lite0 does: (B, 3, s, s) to (B, width, s / 8, s / 8).

    As `convolutional_stem`, for a transformer that learns from a CLIP whose image tower is an EfficientNet-Lite0.

    Args:
        stages: how many of its seven stages the projection holds.

    Raises:
        ValueError: a number of stages after which a side is not divided by 8.
    """
    import timm

    if stages != 3:
        raise ValueError(f"stages={stages}: expected 3, after which EfficientNet-Lite0 has halved the side three times")
    trunk: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    last = trunk.blocks[stages - 1][-1].bn3.num_features
    return nn.Sequential(trunk.conv_stem, trunk.bn1, *trunk.blocks[:stages], nn.Conv2d(last, width, 1))


def save_tiny_clip(
    path, network, config: dict, mean, std, token_rows: Tensor | None, reference=None, text_from: str = "", stem=None
) -> Path:
    """Write an `open_clip.CLIP` made from `config`.

    Args:
        token_rows: (R,) tokens that training met; only their embeddings are stored.
        reference: (N, D) unit features of training images, kept for `FrozenCLIP.reference_features`.
        text_from: name of a file in the same folder whose text tower is this one's; none is stored then.
        stem: arguments of `efficientnet_stem` (or of `convolutional_stem`), if the network has one.
    """
    kept = network.state_dict()
    state = {name: (v.half() if v.is_floating_point() else v).contiguous() for name, v in kept.items()}
    if text_from:
        state = {name: value for name, value in state.items() if name.startswith("visual.")}
    elif token_rows is None:
        raise ValueError("token_rows=None: expected the tokens that training met, or text_from=")
    else:
        state["token_embedding.weight"] = state["token_embedding.weight"][token_rows].contiguous()
        state["token_rows"] = token_rows.int()
    if reference is not None:
        state["reference_features"] = reference.half()
    header = {"model": config, "mean": list(mean), "std": list(std), "text_from": text_from, "stem": stem}
    return write_atomically(path, lambda part: save_file(state, part, metadata={"config": json.dumps(header)}))


def load_tiny_clip(path: str | Path) -> tuple[nn.Module, list[float], list[float], Tensor, Tensor | None]:
    """What `FrozenCLIP` is made of: the network, its mean and std, the tokens it knows (V,) bool, reference features.

    Raises:
        FileNotFoundError: no such file, or no neighbour with the text tower.
        ValueError: a file that is cut short, or whose weights do not fit its config.
    """
    from open_clip import CLIP

    path = Path(path)
    metadata, state = read_safetensors(path, "CLIP", "config")
    header = metadata["config"]
    if header.get("text_from"):
        _, text = read_safetensors(path.with_name(header["text_from"]), "CLIP", "config")
        state = {name: value for name, value in text.items() if not name.startswith("visual.")} | state
    with named_errors(path, "a CLIP of vpkit"):
        network = CLIP(**header["model"])
    if header.get("stem"):
        stem = efficientnet_stem if "stages" in header["stem"] else convolutional_stem
        network.visual.conv1 = stem(**header["stem"])
    known = torch.zeros(network.vocab_size, dtype=torch.bool)
    with named_errors(path, type(network.visual).__name__):
        rows, reference = state.pop("token_rows").long(), state.pop("reference_features", None)
        # Words it never met get small random vectors, always the same, so that two of them are not one word.
        table = torch.randn(network.token_embedding.weight.shape, generator=torch.Generator().manual_seed(0)) * 0.02
        table[rows] = state["token_embedding.weight"].float()
        values = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
        network.load_state_dict(values | {"token_embedding.weight": table})
        known[rows] = True
    known[0] = True  # padding
    return network, header["mean"], header["std"], known, None if reference is None else reference.float()
