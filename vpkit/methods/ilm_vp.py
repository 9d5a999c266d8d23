"""RLM, FLM, ILM and BLM: how the mapping of a prompted classifier is made anew between epochs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vpkit.datasets.image_set import ImageSet
from vpkit.interfaces import LabelledBatches
from vpkit.mappings.one_to_one import (
    LabelMapping,
    PredictionCounts,
    count_predictions,
    frequency_mapping,
    identity_mapping,
    optimal_mapping,
    random_mapping,
)
from vpkit.mappings.weighted import LinearMapping, WeightedMapping, bayesian_mapping, probability_mass
from vpkit.methods.vp import PromptedClassifier
from vpkit.models.frozen import FrozenModel
from vpkit.training.history import History
from vpkit.training.loop import fit
from vpkit.training.schedules import multistep

__all__ = [
    "MAPPINGS",
    "CountingClassifier",
    "empty_mapping",
    "first_mapping",
    "remap",
    "remap_from_training",
    "train_border",
]

MAPPINGS: dict[str, dict[str, Any]] = {  # what `remap` is given for each method
    "FLM": {"interval": None},
    "FLM soft": {"interval": None, "with_probability": True},
    "ILM": {},
    "ILM soft": {"with_probability": True},
    "ILM soft + Hungarian": {"assign": optimal_mapping, "with_probability": True},
    "BLM": {"assign": bayesian_mapping},
    "BLM+": {"assign": bayesian_mapping, "count": probability_mass},
}


def empty_mapping(method: str, num_source: int, num_target: int) -> nn.Module:
    """A mapping of the kind that `remap` makes for a row of `MAPPINGS`, before it has: a checkpoint can go into it."""
    if MAPPINGS.get(method, {}).get("assign") is bayesian_mapping:
        return WeightedMapping(torch.zeros(num_source, num_target))
    return identity_mapping(num_target)


def first_mapping(
    method: str, model: FrozenModel, prompt: nn.Module, batches: LabelledBatches, seed: int = 0
) -> nn.Module:
    """What a classifier starts with: RLM's draw, FLM as a learned matrix for "linear mapping", else an empty mapping.

    Args:
        method: "RLM", "linear mapping", or a row of `MAPPINGS`, whose `remap` makes its own before the first epoch.
        model, prompt, batches: what is counted for "linear mapping".
        seed: of RLM.
    """
    num_source, num_target = len(model.class_names), len(batches.class_names)
    if method == "RLM":
        return random_mapping(num_source, num_target, seed)
    if method == "linear mapping":
        return LinearMapping(num_source, frequency_mapping(count_predictions(model, prompt, batches)))
    return empty_mapping(method, num_source, num_target)


def remap(
    batches: LabelledBatches,
    assign: Callable[..., nn.Module] = frequency_mapping,
    count: Callable[..., Tensor | tuple[Tensor, Tensor]] = count_predictions,
    interval: int | None = 1,
    margin: float | None = None,
    last: int | None = None,
    **options,
) -> Callable[[PromptedClassifier, int], None]:
    """ILM's lower level, for `fit(..., before_epoch=remap(...))`: the mapping anew, given the prompt of the moment.

    Args:
        batches: of the training images; one pass a mapping.
        assign: what `count` returns to a mapping, such as `frequency_mapping`.
        count: `(model, prompt, batches, **options)` to counts, or to counts and probabilities.
        interval: epochs between two mappings; None makes one, before the first epoch (FLM).
        margin: inertia (ours): a new one-to-one mapping replaces the old one only if more images vote for it, by more
            than this share of them, in [0, 1]; None replaces it always.
        last: the last epoch that is mapped for; None: none is.
        options: for `count`, such as `with_probability=True`.

    Raises:
        ValueError: an interval or last epoch below 1, or a margin outside [0, 1].

    Source: Chen et al. 2023, Algorithm 1. Explained in chapter 3.
    """
    if margin is not None and not 0 <= margin <= 1:
        raise ValueError(f"margin={margin}: expected a share of the training images, 0 to 1, or None")
    if last is not None and last < 1:
        raise ValueError(f"last={last}: expected the number of an epoch, from 1, or None")
    if interval is not None and interval < 1:
        raise ValueError(
            f"interval={interval}: expected at least 1 epoch between two mappings, or None for one mapping"
        )

    def before_epoch(classifier: PromptedClassifier, epoch: int) -> None:
        if epoch > 1 and (interval is None or (epoch - 1) % interval or (last is not None and epoch > last)):
            return
        counted = count(classifier.model, classifier.prompt, batches, **options)
        tables = counted if isinstance(counted, tuple) else (counted,)
        new = assign(*tables)
        if epoch == 1 or margin is None or _votes(new, *tables) > _votes(classifier.mapping, *tables) + margin:
            classifier.mapping = new

    return before_epoch


def _votes(mapping: nn.Module, counts: Tensor, probability: Tensor | None = None) -> float:
    """The share of the images that voted for their class's source class: accuracy, were there no other classes."""
    if not isinstance(mapping, LabelMapping):
        raise ValueError(f"margin with a {type(mapping).__name__}: only one-to-one mappings have votes to compare")
    return (counts.gather(0, mapping.index[None].to(counts.device)).sum() / counts.sum()).item()


class CountingClassifier(PromptedClassifier):
    """A prompted classifier that counts the source predictions of its training batches.

    Attributes:
        counter: `PredictionCounts` of the epoch, or None.
    """

    counter: PredictionCounts | None = None

    def map_logits(self, source_logits: Tensor, labels: Tensor) -> Tensor:
        if self.counter is not None and self.training:
            self.counter.add(source_logits, labels)
        return super().map_logits(source_logits, labels)


def remap_from_training(
    batches: LabelledBatches, assign: Callable[..., nn.Module] = frequency_mapping, interval: int = 1
) -> Callable[[CountingClassifier, int], None]:
    """`remap` without its pass over the images: counts of the epoch just trained, whose prompts differ step by step.

    Args:
        batches: of the training images, for the first mapping only.
        assign, interval: as for `remap`. The classifier must be a `CountingClassifier`.

    Raises:
        ValueError: an interval below 1.

    Ours; chapter 3 compares the two.
    """
    first = remap(batches, assign, interval=interval)

    def before_epoch(classifier: CountingClassifier, epoch: int) -> None:
        if epoch == 1:
            first(classifier, epoch)
        elif (epoch - 1) % interval == 0:
            assert classifier.counter is not None  # set before the epoch that was just trained
            classifier.mapping = assign(classifier.counter.counts)
        classifier.counter = PredictionCounts(len(batches.class_names))

    return before_epoch


def train_border(
    method: str,
    model: FrozenModel,
    prompt: nn.Module,
    train: ImageSet,
    val: ImageSet,
    epochs: int,
    lr: float,
    batch_size: int = 16,
    interval: int = 1,
    seed: int = 0,
) -> tuple[CountingClassifier, History]:
    """A prompt trained under one way of mapping, and how it went: chapter 3's loop for every method.

    Adam, whose rate falls to a tenth after 50 % and 72 % of the epochs (`multistep`).

    Args:
        method: "RLM", "linear mapping", "ILM from training" or a row of `MAPPINGS`.
        model: frozen.
        prompt: not trained yet, such as `ExpandPrompt(...)`.
        train, val: images that the prompt takes; counted are those of `train`.
        lr: of the prompt; that of a learned linear mapping is 1e-3.
        interval: epochs between two mappings, see `remap`.
        seed: of RLM's draw; the order of the batches follows torch's.

    Source: Chen et al. 2023, Algorithm 1 and Sec. 5. Explained in chapter 3.
    """
    device, counted = train.labels.device, train.batches()
    start = first_mapping(method, model, prompt.to(device), counted, seed)
    classifier = CountingClassifier(prompt, model, start).to(device)
    groups = {prompt: lr, classifier.mapping: 1e-3}
    optimizer = torch.optim.Adam([{"params": list(part.parameters()), "lr": rate} for part, rate in groups.items()])
    before_epoch: Callable[[Any, int], object] | None = None
    if method == "ILM from training":
        before_epoch = remap_from_training(counted, interval=interval)
    elif method in MAPPINGS:
        before_epoch = remap(counted, **{"interval": interval} | MAPPINGS[method])
    batches = train.batches(batch_size, shuffle=True), val.batches()
    history = fit(classifier, *batches, optimizer, epochs, before_epoch, schedule=multistep, name=method)
    return classifier, history
