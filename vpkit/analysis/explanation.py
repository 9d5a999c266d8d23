"""Explanation by example: the source images that a prompted image resembles most (Chen et al. 2023, Appendix C)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vpkit.datasets.image_set import ImageSet
from vpkit.interfaces import Batch
from vpkit.methods.vp import PromptedClassifier

__all__ = ["Explanation", "explain_by_example", "source_probabilities"]


@dataclass(frozen=True)
class Explanation:
    """Why an image was given its target class.

    Attributes:
        target_class: the predicted target class.
        source_class: the source class it is mapped to.
        nearest: positions in the source set, most similar first; empty if the set has no image of the class.
        similarity: their cosines, in [-1, 1].
    """

    target_class: int
    source_class: int
    nearest: list[int]
    similarity: list[float]


@torch.no_grad()
def explain_by_example(
    classifier: PromptedClassifier, images: Tensor, source: ImageSet, count: int = 3
) -> list[Explanation]:
    """For each image, the images of the mapped source class nearest to it by cosine of penultimate features.

    The target image is prompted, the source images are not: they are resized to the side of the prompted image.

    Args:
        classifier: with a one-to-one mapping and a model that has `features` and `class_names`.
        images: (B, 3, h, w) in [0, 1].
        source: labelled source images whose class names are among the model's.
        count: how many neighbours, where the set has so many.

    Raises:
        ValueError: class names that the model does not know, a mapping that is not one-to-one, a model without features
            or class names, or count below 1.
    """
    if count < 1:
        raise ValueError(f"count={count}: expected at least 1")
    index = getattr(classifier.mapping, "index", None)
    if index is None:
        raise ValueError(f"{type(classifier.mapping).__name__} is not one-to-one: expected one such as ILM makes")
    names, encode = (getattr(classifier.model, member, None) for member in ("class_names", "features"))
    if names is None or encode is None:
        raise ValueError(f"{type(classifier.model).__name__} lacks `features` or `class_names`: use a FrozenModel")
    position = {name: s for s, name in enumerate(names)}
    unknown = [name for name in source.class_names if name not in position]
    if unknown:
        raise ValueError(
            f"{len(unknown)} classes of the source set are not the model's: {', '.join(unknown[:5])}; "
            f"expected names such as {', '.join(names[:3])}"
        )
    source_labels = torch.tensor([position[name] for name in source.class_names])[source.labels.cpu()]  # (N,) in 0..S-1

    prompted = classifier.prompt(images)
    features = normalize(encode(prompted).float(), dim=1)  # (B, D)
    predicted = classifier(images).argmax(1)
    mapped = index.to(predicted.device)[predicted]
    explanations: dict[int, Explanation] = {}
    for source_class in mapped.unique().tolist():
        members = torch.where(source_labels == source_class)[0]
        rows = torch.where(mapped == source_class)[0].tolist()
        if len(members):
            theirs = _features(encode, source[members.to(source.labels.device)], prompted.shape[-1])
            cosine = features[rows] @ theirs.T.to(features.device)  # (rows, members)
            values, order = cosine.topk(min(count, len(members)), dim=1)
        for i, row in enumerate(rows):
            nearest = members[order[i].cpu()].tolist() if len(members) else []
            similarity = values[i].tolist() if len(members) else []
            explanations[row] = Explanation(int(predicted[row]), source_class, nearest, similarity)
    return [explanations[row] for row in range(len(images))]


def _features(encode: Callable[[Tensor], Tensor], image_set: ImageSet, size: int) -> Tensor:
    parts = [encode(images).float() for images, _ in image_set.resized(size).batches()]
    return normalize(torch.cat(parts), dim=1)


@torch.no_grad()
def source_probabilities(classifier: PromptedClassifier, batches: Iterable[Batch]) -> Tensor:
    """(N, T): how likely the model holds each target class's source class to be, of prompted images.

    Args:
        classifier: with a one-to-one mapping.
        batches: of images (B, 3, h, h) in [0, 1] and labels.
    """
    parts = [classifier.model(classifier.prompt(images)).softmax(1) for images, _ in batches]
    return classifier.mapping(torch.cat(parts))
