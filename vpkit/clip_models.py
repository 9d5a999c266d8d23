"""The CLIP models of the book by name, and how their weights are found on this machine."""

from importlib import resources
from pathlib import Path

import torch

from vpkit.frozen_clip import OPENAI_MEAN, OPENAI_STD, FrozenCLIP
from vpkit.hub_models import find_weights, named_errors
from vpkit.own_clip import load_own

__all__ = ["CLIP_MODELS", "load_clip"]

CLIP_MODELS = {  # name: (architecture and pretrained tag of open_clip, or the package's own file, what it is)
    "tiny": ("tiny.safetensors", "ours: a thin ModifiedResNet, 96 px (every default)"),
    "tiny-vit": ("tiny-vit.safetensors", "ours: a small VisionTransformer, 96 px, distilled from tiny"),
    "ViT-B-32": ("open_clip:ViT-B-32/openai", "OpenAI's, 224 px (VP, ILM-VP, DPT)"),
    "ViT-B-16": ("open_clip:ViT-B-16/openai", "OpenAI's, 224 px (LoGoPrompt)"),
    "RN50": ("open_clip:RN50/openai", "OpenAI's, 224 px (LoGoPrompt)"),
}


def load_clip(
    name: str,
    device: torch.device | str | None = None,
    *,
    weights: str | Path | None = None,
    download: bool = False,
) -> FrozenCLIP:
    """Load a row of `CLIP_MODELS`, frozen, on `device` (default: the CPU).

    Args:
        name: a row, or `open_clip:ARCHITECTURE/PRETRAINED` for any pair of `open_clip.list_pretrained()`.
        device: where to put it.
        weights: a weight file to use; otherwise it is looked for in `$VPKIT_WEIGHTS` (default: `weights` in the
            cache folder) and in the Hugging Face cache.
        download: fetch missing weights. Nothing else in vpkit touches the network.

    Raises:
        ValueError: an unknown name, or a file that does not fit the model or is cut short.
        FileNotFoundError: weights that are not on this machine; the message says what to put where.

    Explained in chapter 4.
    """
    target = CLIP_MODELS[name][0] if name in CLIP_MODELS else name
    if target.startswith("open_clip:") and target.count("/") == 1:
        architecture, tag = target.removeprefix("open_clip:").split("/")
        clip = _load_hub(architecture, tag, weights, download)
    elif name in CLIP_MODELS:
        clip = FrozenCLIP(*load_own(weights or str(resources.files("vpkit") / "data" / "clip" / target)))
    else:
        known = ", ".join(CLIP_MODELS)
        raise ValueError(f"unknown CLIP model {name!r}: expected one of {known}, or open_clip:ARCHITECTURE/PRETRAINED")
    return clip.to(device=device).to(memory_format=torch.channels_last)


def _load_hub(architecture: str, tag: str, weights: str | Path | None, download: bool) -> FrozenCLIP:
    import open_clip

    config = open_clip.get_model_config(architecture)
    pretrained = open_clip.get_pretrained_cfg(architecture, tag)
    if config is None or not pretrained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "open_clip.list_pretrained()"
        raise ValueError(f"open_clip has no {architecture}/{tag}: expected one of {tags}")
    repository = pretrained.get("hf_hub", "").rstrip("/")

    def library_cache():
        from huggingface_hub import try_to_load_from_cache

        for file_name in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
            found = try_to_load_from_cache(repository, file_name) if repository else None
            if isinstance(found, str):
                return Path(found)
        return None

    source = f"open_clip_model.safetensors of {repository} on the Hugging Face hub"
    path = find_weights(
        f"{architecture}-{tag}.safetensors", source, weights, download, library_cache,
        fetch=lambda: open_clip.download_pretrained(pretrained),
    )  # fmt: skip
    quick = bool(pretrained.get("quick_gelu") or config.get("quick_gelu"))  # OpenAI trained with this activation
    network = open_clip.create_model(architecture, pretrained=None, force_quick_gelu=quick, pretrained_text=False)
    with named_errors(path, type(network.visual).__name__):
        open_clip.load_checkpoint(network, str(path))
    return FrozenCLIP(network, pretrained.get("mean") or OPENAI_MEAN, pretrained.get("std") or OPENAI_STD)
