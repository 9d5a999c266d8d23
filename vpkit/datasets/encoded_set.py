"""A split after part of the model, computed once: features, or the patch embeddings of images."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vpkit.datasets.batches import Batches
from vpkit.datasets.image_set import ImageSet

__all__ = ["EncodedSet", "cache_features"]


@dataclass(frozen=True)
class EncodedSet:
    """What a frozen part of a model made of a split, with the labels.

    Attributes:
        inputs: N rows, a tensor such as features (N, D), or `PatchEmbeddings`; see `Batches`.
        labels: (N,) int64.
        class_names: of the T classes.
    """

    inputs: Any
    labels: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, shuffle: bool = False, generator: torch.Generator | None = None) -> Batches:
        """Batches of `(inputs, labels)`; see `Batches`."""
        return Batches(self.inputs, self.labels, self.class_names, batch_size, shuffle, generator)


@torch.no_grad()
def cache_features(encode, images: ImageSet, batch_size: int = 64) -> EncodedSet:
    """`encode` over all images, once: for methods that train nothing on the image side.

    Args:
        encode: (B, 3, h, w) in [0, 1] to (B, D), such as `clip.encode_image`.
        images: the split.
    """
    parts = [(encode(x), y) for x, y in images.batches(batch_size)]
    features, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return EncodedSet(features, labels, images.class_names)
