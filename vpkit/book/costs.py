"""What a grid costs before anyone pays for it: floating-point operations, counted layer by layer without computing."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from vpkit.book.grids import Point
from vpkit.book.session import declared_values
from vpkit.datasets import DATASETS
from vpkit.models.clip import CLIP_MODELS, clip_image_size, load_clip
from vpkit.models.frozen import FROZEN_MODELS
from vpkit.models.hub import build_timm

__all__ = ["Cost", "forward_flops", "point_flops", "text_flops"]

# Images when the papers print no size: ImageNet's own, CoOp's splits of Caltech101 and FGVC Aircraft.
_SIZES = {
    "imagenet": (1_281_167, 0, 50_000), "caltech101": (4_128, 1_649, 2_465), "fgvc_aircraft": (3_334, 3_333, 3_333),
    "imagenet_r": (21_000, 3_000, 6_000), "imagenet_sketch": (35_622, 5_089, 10_178),
    "icons": (64 * 66, 16 * 66, 32 * 66), "textile": (1_440, 160, 400), "mnist5k": (3_600, 400, 1_000),
    "digits": (1_293, 144, 360), "pictograms": (48 * 122, 12 * 122, 24 * 122),
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of a run: a multiplication and an addition are two.

    Attributes:
        training: of the epochs, with their passes for mapping and validation.
        rest: features for a probe, pasted pairs, tests.
    """

    training: float
    rest: float

    @property
    def total(self) -> float:
        return self.training + self.rest


@cache
def forward_flops(model: str) -> float:
    """One image through a row of `FROZEN_MODELS`, or through the image tower of a row of `CLIP_MODELS`, at its side.

    Raises:
        ValueError: another model.
    """
    if model in FROZEN_MODELS:
        network, side = _frozen(model), FROZEN_MODELS[model].image_size
    else:
        network, side = _clip(model).visual, clip_image_size(model)
    return _counted(network, torch.zeros(1, 3, side, side))


@cache
def text_flops(model: str) -> float:
    """One sentence of full length through the text tower of a row of `CLIP_MODELS`."""
    clip = _clip(model)
    return _counted(clip.encode_text, torch.zeros(1, clip.context_length, dtype=torch.long), clip)


def point_flops(point: Point) -> Cost:
    """What a point of a grid of chapters 1 to 6 costs, from its parameters and the sizes the papers print.

    Counted: a step of a prompt is a forward pass and the backward pass to its input (2 forward passes), of fine-tuning
    three; mapping and validation one each; on cached features only the text tower works.
    """
    import nbformat

    p = declared_values(nbformat.reads(point.notebook, as_version=4)) | point.parameters
    train, val, test = _images(p)
    image, epochs, methods = forward_flops(p["model"]), p["epochs"], list(p["methods"])
    if point.name.startswith("01"):
        shown = min(epochs, 10) * (2 * train + val)
        return Cost(image * (shown + len(methods) * epochs * (2 * train + val)), image * (train + val + 6 * test))
    if point.name.startswith("02"):
        drift = bool(methods) * epochs * train
        steps = len(methods) * epochs * (2 * train + val) + drift
        return Cost(image * steps, image * (2 * train + 3 * val + 4 * test))
    if point.name.startswith("03"):
        mapped = [m for m in methods if m != "full fine-tuning"] + ["ILM"] * p["train_ilm"]
        each = {m: 2 * train + val + (train if m not in ("RLM", "FLM", "FLM soft") else 0) for m in mapped}
        tuned = ("full fine-tuning" in methods) * (3 * train + val)
        return Cost(image * epochs * (sum(each.values()) + tuned), image * (train + val + (len(mapped) + 2) * test))
    text, classes = text_flops(p["model"]), DATASETS[p["dataset"].partition(":")[0]].classes
    if point.name.startswith("04"):
        each = {"VP+TP": 2 * train + val, "VP+TP+LM": 3 * train + val, "full fine-tuning": 3 * train + val}
        steps = sum(each.get(method, 0) for method in methods)
        return Cost(image * epochs * steps, image * (train + 2 * val + 5 * test) + text * 82 * classes)
    steps = epochs * -(-train // p["batch_size"])
    if point.name.startswith("05"):
        return _of_names(p, image, text, classes, steps, train, test)
    # Tokens go through the whole image tower, forward and back; class-aware ones need the plain image too.
    half = -(-classes // 2)
    methods = [m for m in methods if m != "controls"]  # these take features that are there
    trained = [(m, classes, train) for m in methods] + [(m, half, train * half // classes) for m in p["new_methods"]]
    training = 0.0
    for method, count, images in trained:
        on_image = method not in ("CoOp", "KgCoOp")
        training += on_image * image * epochs * (2 * images + min(val, 4 * count))
        training += p["augment"] * image * epochs * images  # the plain crop
        training += (not method.startswith("VPT")) * 2 * text * count * epochs * -(-images // p["batch_size"])
    domains = len(p["shifted"])
    return Cost(training, image * (train + val + (1 + domains) * test * (1 + len(methods))))


def _of_names(p: dict, image: float, text: float, classes: int, steps: float, train: int, test: int) -> Cost:
    learners = ("CoOp", "CoOp, class-specific", "LoGoPrompt", "LoGoPrompt, shared")  # Tip-Adapter-F asks no tower
    training = 2 * text * classes * steps * sum(name not in p["without"] for name in learners)
    half = -(-classes // 2)
    if "base to new" in p["methods"]:
        rows = ["CoOp", "LoGoPrompt, shared", "LoGoPrompt, first stage", *(["KgCoOp"] * ("KgCoOp" in p["methods"]))]
        on_base = steps / 2 * (p["new_epochs"] or p["epochs"]) / p["epochs"]
        training += 2 * text * half * on_base * sum(name not in p["without"] for name in rows)
    if "CoCoOp" in p["methods"]:  # every image has sentences of its own
        count = half if "base to new" in p["methods"] else classes
        training += 3 * text * count * max(1, p["epochs"] // 6) * train * count / classes
    if "VP+TP" in p["methods"]:
        training += image * p["epochs"] * 2 * train
    seen = 1 + p["num_candidates"]  # names on an image, in a step and at test
    if p["augment"]:  # nothing can be kept: every crop goes through the tower, for LoGoPrompt with each of its names

        def passes(names: Iterable[str]) -> int:
            return sum(1 if name.startswith("CoOp") else 1 + seen for name in names if name not in p["without"])

        training += image * p["epochs"] * train * passes(learners)
        if "base to new" in p["methods"]:
            training += image * p["epochs"] * train / 2 * passes(rows)
    pairs = train * min(classes, 4 * seen)  # names that an image meets while it is trained on
    tested = test * seen * (1 + len(p["shifted"]))
    return Cost(training, image * (pairs + tested))


def _images(p: dict) -> tuple[int, int, int]:
    """Images for training, validation and testing."""
    name = p["dataset"]
    train, val, test = DATASETS[name.partition(":")[0]].sizes or _SIZES[name]
    if "shots" in p:
        classes = DATASETS[name.partition(":")[0]].classes
        return min(p["shots"] * classes, p["n_train"]), min(4 * classes, p["n_test"]), min(test, p["n_test"])
    val = val or train // 10
    return min(train, p["n_train"]), min(val, p["n_test"]), min(test, p["n_test"])


def _frozen(model: str) -> nn.Module:
    build = FROZEN_MODELS[model].build
    if isinstance(build, partial) and build.func is build_timm:
        import timm

        with torch.device("meta"):  # the largest takes 20 seconds to fill with random numbers
            return timm.create_model(build.args[0], pretrained=False)
    if isinstance(build, partial):
        from torchvision import models

        return models.get_model(build.args[0], weights=None)
    return build(None, False).network


def _clip(model: str) -> Any:
    if model not in CLIP_MODELS:
        raise ValueError(f"model={model!r}: expected one of {', '.join([*FROZEN_MODELS, *CLIP_MODELS])}")
    target = CLIP_MODELS[model][0]
    if not target.startswith("open_clip:"):
        return load_clip(model).network
    import open_clip

    return open_clip.create_model(target.removeprefix("open_clip:").split("/")[0], pretrained=None)


def _counted(function: Callable[[torch.Tensor], Any], inputs: torch.Tensor, owner: nn.Module | None = None) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    module = owner if owner is not None else function
    assert isinstance(module, nn.Module)
    module.eval().to("meta")  # shapes only: nothing is computed
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(inputs.to("meta"))
    return float(counter.get_total_flops())
