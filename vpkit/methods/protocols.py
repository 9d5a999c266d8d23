"""How methods are tested beyond one test split: on shifted domains, and on classes they were not trained on."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vpkit.datasets.image_set import ImageSet
from vpkit.methods.vp import count_parameters
from vpkit.prompts.context import ContextPrompt
from vpkit.training.loop import evaluate

if TYPE_CHECKING:  # takes a second to load
    import pandas as pd

__all__ = ["base_to_new", "evaluate_domains", "harmonic_mean", "join_tables", "shifted_domains"]


_AMONG_THEIR_OWN = ("a", "r")  # of ImageNet, as `shifted_domains` calls them


def shifted_domains(
    load: Callable[..., Any], dataset: str, shifted: Sequence[str], subset: int, like: ImageSet | None = None
) -> dict[str, Any]:
    """The test splits of `dataset` under other conditions: {"sketch": ...} of ["icons:sketch"].

    Args:
        load: `load(name, "test", subset=...)`, such as `load_dataset` with its other options given.
        dataset: "icons"; domains of other data sets in `shifted` are left out.
        shifted: rows of `DATASETS`, "icons:sketch".
        subset: how many test images each.
        like: images whose side and device they get; None: as loaded.
    """
    own = [name for name in shifted if name.startswith(f"{dataset}:")]
    found = {name.removeprefix(f"{dataset}:"): load(name, "test", subset=subset) for name in own}
    if like is None:
        return found
    return {name: images.resized(like.shape[2]).to(like.labels.device) for name, images in found.items()}


def evaluate_domains(
    classifiers: Mapping[str, Any], tests: Mapping[str, Any], batch_size: int | None = None
) -> "pd.DataFrame":
    """Accuracies in [0, 1] of each method on each of several splits: columns method, parameters, and one a split.

    Args:
        classifiers: by method.
        tests: anything with `.batches(batch_size)` and ``labels``, by name of the column; each is read once a method.
            In ImageNet-A ("a") and -R ("r") a prediction is among the 200 classes that have images.
        batch_size: of the tests; None: as `Batches` chooses for the device.

    Source: LoGoPrompt's Table 2, DPT's Table 4: trained on one domain, tested on the others too.
    """
    import pandas as pd

    return pd.DataFrame(
        {"method": method, "parameters": count_parameters(classifier)}
        | {name: _accuracy(classifier, name, split, batch_size) for name, split in tests.items()}
        for method, classifier in classifiers.items()
    )


def join_tables(first: "pd.DataFrame", *more: "pd.DataFrame") -> "pd.DataFrame":
    """Tables with a column `method` side by side, a row for each method of any; None where one has no number."""
    for table in more:
        first = first.merge(table, how="outer", on="method", sort=False)
    table = first.astype(object)
    return table.where(table.notna(), None)


def _accuracy(classifier: Any, name: str, split: Any, batch_size: int | None) -> float:
    if name in _AMONG_THEIR_OWN:
        here = torch.bincount(split.labels, minlength=len(split.class_names)) > 0
        classifier = _Among(classifier, here)
    return evaluate(classifier, split.batches(batch_size)).accuracy


class _Among(nn.Module):
    """A classifier that names none but some classes: `here`, (T,) bool."""

    def __init__(self, classifier: Any, here: Tensor):
        super().__init__()
        self.classifier: Any = classifier
        self.here = here

    def loss(self, images: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = self.classifier.loss(images, labels)
        return loss, logits.masked_fill(~self.here, -torch.inf)


def base_to_new(
    make: Callable[[Sequence[str]], Any],
    learn: Callable[[Any], object],
    halves: Mapping[str, Any],
    batch_size: int | None = None,
) -> dict[str, float]:
    """Accuracies {"base", "new", "H"} of a prompt that was trained on the base classes and tested on both halves.

    Args:
        make: class names to an untrained classifier.
        learn: trains a classifier of the base classes, in place; may do nothing (zero-shot).
        halves: test splits "base" and "new", see `ImageSet.base_new_split`, with ``class_names`` and ``batches``.
        batch_size: of the tests; None: as `Batches` chooses for the device.

    Raises:
        ValueError: class-specific contexts, which belong to the base classes alone.

    What was learned goes to a classifier of the other names, but for DPT's auxiliary classifier, which only training
    uses. Source: Zhou et al. 2022 (CoCoOp), Sec. 4.1.
    """
    trained = make(halves["base"].class_names)
    if any(isinstance(module, ContextPrompt) and module.context.ndim == 3 for module in trained.modules()):
        raise ValueError("class-specific contexts mean nothing to new classes: use shared ones, or GeneratedContext")
    learn(trained)
    state = {name: value for name, value in trained.state_dict().items() if ".classifier." not in name}
    found = {}
    for half in ("base", "new"):
        other = make(halves[half].class_names)
        other.load_state_dict(state, strict=False)
        found[half] = evaluate(other, halves[half].batches(batch_size)).accuracy
    return found | {"H": harmonic_mean(found["base"], found["new"])}


def harmonic_mean(base: float, new: float) -> float:
    """H = 2 b n / (b + n) of two accuracies, 0 if both are 0 (base-to-new generalisation)."""
    return 2 * base * new / (base + new) if base + new else 0.0
