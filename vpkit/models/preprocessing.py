"""How images come to the side that a model takes: the rule it was trained with, known without its weights."""

from functools import partial

from vpkit.interfaces import Resize
from vpkit.models.clip import CLIP_MODELS, clip_image_size
from vpkit.models.frozen import FROZEN_MODELS
from vpkit.models.hub import build_torchvision

__all__ = ["resize_of"]


def resize_of(model: str, side: int | None = None) -> Resize:
    """The model's own preprocessing as a size for `load_dataset`.

    torchvision's and timm's networks: shorter side to 256 of 224, the middle cut out; open_clip's: bicubic, shorter
    side, the middle cut out. The models that come with vpkit were made for, or are used at, squashed images.

    Args:
        model: a row of `FROZEN_MODELS` or `CLIP_MODELS`, `timm:NAME` or `open_clip:ARCHITECTURE/TAG`.
        side: in pixels, if not the model's own.

    Raises:
        ValueError: an unknown model.
    """
    target = CLIP_MODELS[model][0] if model in CLIP_MODELS else model
    if target.startswith("open_clip:"):
        how = _of_open_clip(*target.removeprefix("open_clip:").split("/", 1))
    elif model in CLIP_MODELS:
        how = Resize(clip_image_size(model))
    elif model in FROZEN_MODELS or model.startswith("timm:"):
        how = _of_frozen(model)
    else:
        raise ValueError(f"unknown model {model!r}: expected one of {', '.join([*FROZEN_MODELS, *CLIP_MODELS])}")
    return how if side is None else how.at(side)


def _of_frozen(model: str) -> Resize:
    row = FROZEN_MODELS.get(model)
    if row is not None and row.offline:
        return Resize(row.image_size)
    if row is not None and isinstance(row.build, partial) and row.build.func is build_torchvision:
        from torchvision import models

        architecture, weights_name = row.build.args
        preset = models.get_model_weights(architecture)[weights_name].transforms()
        (crop,), (short,) = preset.crop_size, preset.resize_size
        return Resize(crop, "crop", preset.interpolation.value, short / crop)
    import timm

    name = model.removeprefix("timm:") if row is None or not isinstance(row.build, partial) else row.build.args[0]
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise ValueError(f"timm has no model {name!r}: expected one of timm.list_models()")
    side = config.input_size[-1]
    return Resize(side, "crop", config.interpolation, 1 / (config.crop_pct or 1.0))


def _of_open_clip(architecture: str, tag: str) -> Resize:
    import open_clip

    config, pretrained = open_clip.get_model_config(architecture), open_clip.get_pretrained_cfg(architecture, tag)
    if config is None or not pretrained:
        raise ValueError(f"open_clip has no {architecture}/{tag}: expected a pair of open_clip.list_pretrained()")
    rule = "squash" if pretrained.get("resize_mode") == "squash" else "crop"
    return Resize(config["vision_cfg"]["image_size"], rule, pretrained.get("interpolation") or "bicubic")
