"""Training of prompts that have a text side, an image side, or both, each with a learning rate of its own."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from vpkit.interfaces import Classifier
from vpkit.methods.dpt import guide
from vpkit.methods.promptsrc import GaussianAverage, PromptSRC
from vpkit.methods.protocols import base_to_new
from vpkit.methods.vp import count_parameters
from vpkit.training.loop import fit
from vpkit.training.schedules import coop, of_each_group

__all__ = ["base_to_new_rows", "train_sides"]

Trained = TypeVar("Trained", bound=Classifier)


def train_sides(
    classifier: Trained,
    train: Any,
    val: Any,
    name: str = "",
    *,
    epochs: int,
    lr: float,
    text_lr: float,
    guided_epochs: int = 0,
    warmup_epochs: int = 0,
    batch_size: int = 32,
) -> Trained:
    """Train what a classifier has of learned tokens and learned text, in place, by SGD with momentum 0.9; returns it.

    Without either, as zero-shot CLIP is, nothing happens. PromptSRC ends with the mean of its weights over the epochs,
    weighed by a bell around three quarters of them, one epoch wide (`GaussianAverage`).

    Args:
        classifier: `DualPromptClassifier`, `PromptSRC` or `KgCoOp`.
        train, val: as `cache_patches` makes them; anything with `.batches(...)`.
        name: of the run, see `fit`.
        epochs: over the training images.
        lr: of the tokens and class-aware blocks.
        text_lr: of the learned words.
        guided_epochs: the first ones, of Eq. 12.
        warmup_epochs: of the image side at a rate of 1e-5, and at most one of the text side; with any, weights decay by
            5e-4.
        batch_size: of the training images.

    Source: Xing et al. 2023, Sec. IV-B and released code; Khattak et al. 2023, Sec. 3.2. Explained in chapter 6.
    """
    if not count_parameters(classifier):  # type: ignore[arg-type]
        return classifier
    rates = {"tokens": (lr, warmup_epochs), "text": (text_lr, min(1, warmup_epochs))}
    rates["prompt"] = rates["text"]  # as KgCoOp calls it
    sides = [(getattr(classifier, side, None), *how) for side, how in rates.items()]
    there = [(side, rate, warmup) for side, rate, warmup in sides if side is not None and list(side.parameters())]
    optimizer = torch.optim.SGD(
        [{"params": list(side.parameters()), "lr": rate} for side, rate, _ in there],
        momentum=0.9,
        weight_decay=5e-4 if warmup_epochs else 0,
    )
    average = GaussianAverage(0.75 * epochs, 1.0) if isinstance(classifier, PromptSRC) else None
    hook: Callable[[Any, int], object] = average or guide(guided_epochs)
    schedule = of_each_group(*(coop(rate, warmup) for _, rate, warmup in there))
    batches, held_out = train.batches(batch_size, shuffle=True), val.batches(64)
    fit(classifier, batches, held_out, optimizer, epochs, hook, schedule=schedule, name=name)
    if isinstance(classifier, PromptSRC) and average is not None:
        average.load(classifier)
    return classifier


def base_to_new_rows(
    methods: Sequence[str],
    make: Callable[[str, Sequence[str]], Any],
    learn: Callable[..., object],
    encode: Callable[[str, Any], Any],
    splits: Mapping[str, Any],
) -> dict[str, dict[str, float]]:
    """{"base", "new", "H"} of zero-shot and of each method, trained on the first half of the classes.

    Args:
        methods: names; without any nothing is embedded, and the result is empty.
        make: `make(method, class_names)` gives an untrained classifier; of "zero-shot" it stays so.
        learn: `learn(classifier, train, val, name)` trains in place.
        encode: `encode(split, images)` gives what classifiers take, such as `cache_patches`; once for each half.
        splits: image sets "train", "val" and "test".

    Source: Zhou et al. 2022 (CoCoOp), Sec. 4.1; see `base_to_new`.
    """
    if not methods:
        return {}
    wanted = {"train": 1, "val": 1, "test": 2}  # of train and val only the base half
    halves = {
        split: [encode(split, half) for half in splits[split].base_new_split()[:count]]
        for split, count in wanted.items()
    }

    def trained(method: str) -> Callable[[Any], object]:
        return lambda made: learn(made, halves["train"][0], halves["val"][0], f"{method}, base")

    tests = dict(zip(("base", "new"), halves["test"], strict=True))
    return {method: base_to_new(partial(make, method), trained(method), tests) for method in ("zero-shot", *methods)}
