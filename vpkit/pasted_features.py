"""Features of images with class names pasted on them, each computed once."""

from collections.abc import Callable

import torch
from torch import Tensor

from vpkit.rendered_names import paste

__all__ = ["PastedFeatures"]


class PastedFeatures:
    """Features of image i with the name of class c pasted on it, computed when first asked for and then kept.

    With frozen strips, fixed locations and no augmentation these never change, so training touches only text.

    Args:
        encode: (B, 3, H, W) in [0, 1] to (B, D), such as `clip.encode_image`.
        images: (N, 3, H, W) uint8.
        strips: (T, 3, h, W) uint8, from `render_class_names`.
        tops: (N,) row of the strip on each image.
        batch_size: pasted images encoded at a time.

    Attributes:
        encoded: how many pairs have been computed.
    """

    def __init__(
        self, encode: Callable[[Tensor], Tensor], images: Tensor, strips: Tensor, tops: Tensor, batch_size: int = 64
    ):
        self.encode, self.images, self.strips, self.tops, self.batch_size = encode, images, strips, tops, batch_size
        self.row = torch.full((len(images) * len(strips),), -1, dtype=torch.int64)  # of pair image * T + class
        self.features: list[Tensor] = []

    @property
    def encoded(self) -> int:
        return int((self.row >= 0).sum())

    @torch.no_grad()
    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Indices of images (B,) and classes (B, K) to features (B, K, D)."""
        wanted = (image[:, None] * len(self.strips) + target).cpu()
        missing = wanted.unique()
        missing = missing[self.row[missing] < 0]
        for part in missing.split(self.batch_size):
            i, c = part // len(self.strips), part % len(self.strips)
            pasted = paste(self.images[i].float() / 255, self.strips[c], self.tops[i])
            self.row[part] = torch.arange(len(part)) + sum(map(len, self.features))
            self.features.append(self.encode(pasted))
        if len(self.features) > 1:
            self.features = [torch.cat(self.features)]
        return self.features[0][self.row[wanted].to(self.features[0].device)]
