"""Frozen models whose weights are files: torchvision's and timm's networks, the weights found on this machine.

Nothing is downloaded unless asked for. Weights are read without unpickling code (`weights_only`, safetensors, npz).
"""

import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vpkit.files import cache_folder

__all__ = [
    "HubNetwork",
    "build_timm",
    "build_torchvision",
    "find_weights",
    "hugging_face_cache",
    "named_errors",
    "weights_folder",
]

_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".npz")


@dataclass(frozen=True)
class HubNetwork:
    """A network with its weights loaded, and everything needed to feed it."""

    network: nn.Module
    class_names: tuple[str, ...]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    head: nn.Module


def weights_folder() -> Path:
    """Where weight files belong: `$VPKIT_WEIGHTS` if set, else `weights` in the cache folder."""
    folder = os.environ.get("VPKIT_WEIGHTS")
    return Path(folder).expanduser() if folder else cache_folder() / "weights"


def build_torchvision(architecture: str, weights_name: str, weights: str | Path | None, download: bool) -> HubNetwork:
    """A torchvision classifier, such as `build_torchvision("resnet18", "IMAGENET1K_V1", None, False)`.

    Raises:
        FileNotFoundError: the weights are not on this machine; the message says what to fetch and where to put it.
        ValueError: a weight file of another network, or one that is cut short.
    """
    from torchvision import models

    entry = models.get_model_weights(architecture)[weights_name]
    preset = entry.transforms()
    file_name = entry.url.rsplit("/", 1)[-1]
    path = find_weights(
        file_name, entry.url, weights, download,
        library_cache=lambda: Path(torch.hub.get_dir()) / "checkpoints" / file_name,
        fetch=lambda: torch.hub.load_state_dict_from_url(entry.url, check_hash=True),
    )  # fmt: skip
    network = models.get_model(architecture, weights=None)
    head = load_weights(network, path, next(m for m in reversed(list(network.modules())) if isinstance(m, nn.Linear)))
    names = tuple(entry.meta["categories"])
    return HubNetwork(network, names, preset.crop_size[0], tuple(preset.mean), tuple(preset.std), head)


def build_timm(name: str, weights: str | Path | None, download: bool) -> HubNetwork:
    """A timm classifier with an ImageNet head, such as `build_timm("resnetv2_50x1_bit.goog_in21k", None, False)`.

    Raises:
        FileNotFoundError, ValueError: as `build_torchvision`; also a name that timm does not have, and a head that
            is not one of ImageNet's.
    """
    import timm
    from timm.data import ImageNetInfo, infer_imagenet_subset

    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('.')[0]}*", pretrained=True)[:8]) or "timm.list_models()"
        raise ValueError(f"timm has no model {name!r}: expected a name such as {close}")
    network: Any = timm.create_model(name, pretrained=False)  # timm says nn.Module only, its models have more
    config = network.pretrained_cfg
    if (subset := infer_imagenet_subset(config)) is None:
        raise ValueError(f"timm:{name} has {config['num_classes']} outputs, which is no ImageNet head: wrap it by hand")
    file_name, repository = f"{name}.safetensors", config["hf_hub_id"]

    def fetch():
        from huggingface_hub import hf_hub_download

        hf_hub_download(repository, "model.safetensors")

    source = f"model.safetensors of {repository} on the Hugging Face hub (or the original file of its model card)"
    path = find_weights(
        file_name, source, weights, download, lambda: hugging_face_cache(repository, "model.safetensors"), fetch
    )
    head = load_weights(network, path, network.get_classifier())
    info = ImageNetInfo(subset)
    names = tuple(info.index_to_description(i) for i in range(info.num_classes()))
    return HubNetwork(network, names, config["input_size"][-1], config["mean"], config["std"], head)


def find_weights(
    file_name: str, source: str, given: str | Path | None, download: bool,
    library_cache: Callable[[], Path | None], fetch: Callable[[], object],
) -> Path:  # fmt: skip
    """The weight file: the one given, one in `weights_folder()`, the library's own cache, or a download if allowed.

    Raises:
        FileNotFoundError: none of these; the message says what to fetch and where to put it.
    """
    if given is not None:
        if not Path(given).is_file():
            raise FileNotFoundError(f"weights={str(given)!r}: no such file")
        return Path(given)
    stem = file_name.removesuffix(Path(file_name).suffix) if file_name.endswith(_ENDINGS) else file_name
    here = [weights_folder() / file_name, *(weights_folder() / f"{stem}{ending}" for ending in _ENDINGS)]
    for attempt in (0, 1):
        for path in [*here, library_cache()]:
            if path is not None and path.is_file():
                return path
        if attempt == 0 and download:
            fetch()
    raise FileNotFoundError(
        f"the weights {file_name} are not on this machine: get {source} and save it as {here[0]}, "
        "name the file with weights=, or pass download=True once where there is a network"
    )


def hugging_face_cache(repository: str, *file_names: str) -> Path | None:
    """The first of these files of a repository that the Hugging Face cache of this machine has."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(repository, name) for name in file_names] if repository else []
    return next((Path(path) for path in found if isinstance(path, str)), None)


def load_weights(network: nn.Module, path: Path, head: nn.Module) -> nn.Module:
    """Load `path` (.pth, .safetensors, or Google's .npz) into `network`; returns its head, checked not to be zero.

    Raises:
        ValueError: a file that does not fit the network, is cut short, or has an all-zero head.
    """
    with named_errors(path, type(network).__name__):
        if path.suffix == ".npz":
            if (load_npz := getattr(network, "load_pretrained", None)) is None:
                raise ValueError("it reads no .npz")
            load_npz(str(path))
        elif path.suffix == ".safetensors":
            from safetensors.torch import load_file

            network.load_state_dict(load_file(path))
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            network.load_state_dict(state.get("state_dict", state))
    if not any(parameter.count_nonzero() for parameter in head.parameters()):
        # VP's released BiT code loads exactly this: every logit is 0 and nothing can be learned.
        raise ValueError(f"{path}: the classification head is all zeros; use a checkpoint with its trained head")
    return head


@contextmanager
def named_errors(path: Path, network: str):
    """Whatever goes wrong while a weight file is read becomes a ValueError that names the file and the network.

    Raises:
        ValueError: the file does not fit the network, or is cut short.
    """
    try:
        yield
    except Exception as error:  # torch, numpy, zip, json and safetensors each have their own
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path} does not fit {network}, or is cut short: {reason}") from error
