"""A split after part of the model, computed once: features, or patch embeddings; and images augmented before it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vpkit.datasets.batches import Batches
from vpkit.datasets.image_set import ImageSet

__all__ = ["AugmentedBatches", "EncodedSet", "cache_features", "crop_and_flip"]


@dataclass(frozen=True)
class EncodedSet:
    """What a frozen part of a model made of a split, with the labels.

    Attributes:
        inputs: N rows, a tensor such as features (N, D), or `PatchEmbeddings`; see `Batches`.
        labels: (N,) int64.
        class_names: of the T classes.
        anew: makes other batches than those of `inputs`, such as `AugmentedBatches`; called as `batches` is.
    """

    inputs: Any
    labels: Tensor
    class_names: tuple[str, ...]
    anew: Callable[[int | None, bool, torch.Generator | None], Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, batch_size: int | None = None, shuffle: bool = False, generator: torch.Generator | None = None
    ) -> Batches:
        """Batches of `(inputs, labels)`; see `Batches`."""
        if self.anew is not None:
            return self.anew(batch_size, shuffle, generator)
        return Batches(self.inputs, self.labels, self.class_names, batch_size, shuffle, generator)


class AugmentedBatches:
    """Batches of images, cropped and mirrored anew in each pass and only then encoded: what a cache cannot give.

    Args:
        images: batches of images (B, 3, h, h), floats in [0, 1], and labels.
        encode: a batch of images to what the classifier takes, such as `PatchEmbeddings`.
        augment: (B, 3, h, h) to the same, such as `crop_and_flip`.
    """

    def __init__(self, images: Batches, encode: Callable[[Tensor], Any], augment: Callable[[Tensor], Tensor]):
        self.images, self.encode, self.augment = images, encode, augment
        self.class_names: Sequence[str] = images.class_names
        self.generator = images.generator  # of the order; a checkpoint keeps its state

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        for x, labels in self.images:
            with torch.no_grad():
                encoded = self.encode(self.augment(x))
            yield encoded, labels


def crop_and_flip(images: Tensor) -> Tensor:
    """Each image (B, 3, h, h) in [0, 1] as CoOp trains on it: 8 to 100 % of its area, enlarged again, and mirrored.

    Not for what must not be mirrored, such as digits or letters.

    Source: Zhou et al. 2022 (CoOp), released code: torchvision's `RandomResizedCrop`, bicubic, and
    `RandomHorizontalFlip`.
    """
    from torchvision.transforms import v2  # takes a second to load

    changed = v2.Compose(
        [
            v2.RandomResizedCrop(images.shape[2:], interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
        ]
    )
    return torch.stack([changed(image) for image in images]).clamp(0, 1)  # bicubic overshoots


@torch.no_grad()
def cache_features(encode, images: ImageSet, batch_size: int | None = None) -> EncodedSet:
    """`encode` over all images, once: for methods that train nothing on the image side.

    Args:
        encode: (B, 3, h, w) in [0, 1] to (B, D), such as `clip.encode_image`.
        images: the split.
    """
    parts = [(encode(x), y) for x, y in images.batches(batch_size)]
    features, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return EncodedSet(features, labels, images.class_names)
