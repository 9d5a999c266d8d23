"""Frozen models whose weights are files: torchvision's and timm's networks, the weights found on this machine.

Nothing is downloaded unless asked for. Weights are read without unpickling code (`weights_only`, safetensors, npz).
"""

import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vpkit.downloads import download as fetch_file
from vpkit.downloads import may_download
from vpkit.files import cache_folder

__all__ = [
    "HubNetwork",
    "WeightFile",
    "build_timm",
    "build_torchvision",
    "find_weights",
    "hugging_face_file",
    "named_errors",
    "timm_file",
    "torchvision_file",
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


def build_torchvision(
    architecture: str, weights_name: str, weights: str | Path | None, download: bool | None
) -> HubNetwork:
    """A torchvision classifier, such as `build_torchvision("resnet18", "IMAGENET1K_V1", None, False)`.

    Raises:
        FileNotFoundError: the weights are not on this machine; the message says what to fetch and where to put it.
        ValueError: a weight file of another network, or one that is cut short.
    """
    from torchvision import models

    entry = models.get_model_weights(architecture)[weights_name]
    preset = entry.transforms()
    path = find_weights(torchvision_file(architecture, weights_name), weights, download)
    network = models.get_model(architecture, weights=None)
    head = load_weights(network, path, next(m for m in reversed(list(network.modules())) if isinstance(m, nn.Linear)))
    names = tuple(entry.meta["categories"])
    return HubNetwork(network, names, preset.crop_size[0], tuple(preset.mean), tuple(preset.std), head)


def build_timm(name: str, weights: str | Path | None, download: bool | None) -> HubNetwork:
    """A timm classifier with an ImageNet head, such as `build_timm("resnetv2_50x1_bit.goog_in21k", None, False)`.

    Raises:
        FileNotFoundError, ValueError: as `build_torchvision`; also a name that timm does not have, and a head that
            is not one of ImageNet's.
    """
    import timm
    from timm.data import ImageNetInfo, infer_imagenet_subset

    file = timm_file(name)
    network: Any = timm.create_model(name, pretrained=False)  # timm says nn.Module only, its models have more
    config = network.pretrained_cfg
    if (subset := infer_imagenet_subset(config)) is None:
        raise ValueError(f"timm:{name} has {config['num_classes']} outputs, which is no ImageNet head: wrap it by hand")
    path = find_weights(file, weights, download)
    head = load_weights(network, path, network.get_classifier())
    info = ImageNetInfo(subset)
    names = tuple(info.index_to_description(i) for i in range(info.num_classes()))
    return HubNetwork(network, names, config["input_size"][-1], config["mean"], config["std"], head)


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights: what it is called here and where it comes from.

    Attributes:
        name: of the file, below `weights_folder()`.
        url: its address.
        source: how it is called in messages.
        library_cache: where the library that knows it keeps it, if it does.
        fetch: gets it, and returns where it lies now.
    """

    name: str
    url: str
    source: str
    library_cache: Callable[[], Path | None]
    fetch: Callable[[], Path]

    def here(self) -> Path | None:
        """Where it lies on this machine, if it does, under any of the usual endings."""
        stem = self.name.removesuffix(Path(self.name).suffix) if self.name.endswith(_ENDINGS) else self.name
        places = [weights_folder() / self.name, *(weights_folder() / f"{stem}{ending}" for ending in _ENDINGS)]
        return next((path for path in (*places, self.library_cache()) if path is not None and path.is_file()), None)


def torchvision_file(architecture: str, weights_name: str) -> WeightFile:
    """Of `torchvision.models.get_model_weights(architecture)[weights_name]`; its name ends in its SHA-256 sum."""
    from torchvision import models

    url = models.get_model_weights(architecture)[weights_name].url
    name = url.rsplit("/", 1)[-1]
    digest = name.removesuffix(Path(name).suffix).rpartition("-")[2]
    return WeightFile(
        name, url, url,
        library_cache=lambda: Path(torch.hub.get_dir()) / "checkpoints" / name,
        fetch=lambda: fetch_file(url, weights_folder() / name, sha256=digest),
    )  # fmt: skip


def timm_file(name: str) -> WeightFile:
    """Of a timm model, on the Hugging Face hub.

    Raises:
        ValueError: a name that timm does not have.
    """
    import timm

    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('.')[0]}*", pretrained=True)[:8]) or "timm.list_models()"
        raise ValueError(f"timm has no model {name!r}: expected a name such as {close}")
    config = timm.get_pretrained_cfg(name)
    repository = (config.hf_hub_id if config else None) or ""
    file = hugging_face_file(f"{name}.safetensors", repository, "model.safetensors")
    return replace(file, source=f"{file.source} (or the original file of its model card)")


def hugging_face_file(name: str, repository: str, *file_names: str) -> WeightFile:
    """The first of `file_names` of a repository; the Hugging Face cache of this machine may have any of them."""
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache

    def library_cache() -> Path | None:
        found = [try_to_load_from_cache(repository, file) for file in file_names] if repository else []
        return next((Path(path) for path in found if isinstance(path, str)), None)

    source = f"{file_names[0]} of {repository} on the Hugging Face hub"
    url = hf_hub_url(repository, file_names[0]) if repository else ""
    return WeightFile(name, url, source, library_cache, lambda: Path(hf_hub_download(repository, file_names[0])))


def find_weights(file: WeightFile, given: str | Path | None, download: bool | None) -> Path:
    """The weight file: the one given, one on this machine, or a download if allowed.

    Raises:
        FileNotFoundError: none of these; the message says what to fetch and where to put it.
    """
    if given is not None:
        if not Path(given).is_file():
            raise FileNotFoundError(f"weights={str(given)!r}: no such file")
        return Path(given)
    if (path := file.here()) is not None:
        return path
    if may_download(download):
        return file.fetch()
    raise FileNotFoundError(
        f"the weights {file.name} are not on this machine: `vpkit fetch` and the model's name gets them, and so does "
        f"download=True where there is a network; by hand, get {file.source} and save it as "
        f"{weights_folder() / file.name}, or name the file with weights="
    )


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
