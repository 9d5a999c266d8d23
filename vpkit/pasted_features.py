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
        self.table: Tensor | None = None  # (room, D), the first `encoded` rows are filled
        self.encoded = 0

    @torch.no_grad()
    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Indices of images (B,) and classes (B, K) to features (B, K, D)."""
        wanted = (image[:, None] * len(self.strips) + target).cpu()
        missing = wanted.unique()
        missing = missing[self.row[missing] < 0]
        for part in missing.split(self.batch_size):
            i, c = part // len(self.strips), part % len(self.strips)
            self._keep(part, self.encode(paste(self.images[i].float() / 255, self.strips[c], self.tops[i])))
        return self.table[self.row[wanted].to(self.table.device)]

    def _keep(self, pairs: Tensor, features: Tensor) -> None:
        """Room is doubled when it runs out: copying the table for every batch would cost more than the batch."""
        end = self.encoded + len(pairs)
        if self.table is None:
            self.table = features.new_empty(1024, features.shape[1])
        while end > len(self.table):
            self.table = torch.cat([self.table, torch.empty_like(self.table)])
        self.table[self.encoded : end] = features
        self.row[pairs] = torch.arange(self.encoded, end)
        self.encoded = end
