"""Image features computed once, in the place of images."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vpkit.datasets.image_set import Batches, ImageSet


@dataclass
class FeatureSet:
    """Features (N, D) of a split with their labels (N,); `batches` yields them as an `ImageSet` yields images."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    device: ClassVar[None] = None

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, shuffle: bool = False, generator: torch.Generator | None = None) -> Batches:
        """Batches of `(features, labels)`; see `ImageSet.batches`."""
        return Batches(self, batch_size, shuffle, generator)


@torch.no_grad()
def cache_features(encode, images: ImageSet, batch_size: int = 64) -> FeatureSet:
    """`encode` over all images, once: for methods that train nothing on the image side.

    Args:
        encode: (B, 3, h, w) in [0, 1] to (B, D), such as `clip.encode_image`.
        images: the split.
    """
    parts = [(encode(x), y) for x, y in images.batches(batch_size)]
    features, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return FeatureSet(features, labels, images.class_names)
