"""Features of images with class names pasted on them, each computed once."""

from collections.abc import Callable

import torch
from torch import Tensor

from vpkit.datasets.feature_set import FeatureSet, cache_features
from vpkit.datasets.image_set import Batches, ImageSet
from vpkit.frozen_clip import FrozenCLIP
from vpkit.name_selection import Reselected, reselect
from vpkit.rendered_names import paste, render_class_names, strip_tops

__all__ = ["NamedImages", "PastedFeatures"]


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
        for part in missing.split(self.batch_size) if len(missing) else ():  # an empty tensor splits into one part
            i, c = part // len(self.strips), part % len(self.strips)
            self._keep(part, self.encode(paste(self.images[i].float() / 255, self.strips[c], self.tops[i])))
        if self.table is None:  # nothing was asked for, so nothing is known of the features
            raise ValueError("no image and class was ever asked for")
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


class NamedImages:
    """Images with their features, and with the rendered names of their classes to paste on them.

    Args:
        clip: the frozen model.
        images: as large as the model takes.
        ratio: height of the strips as a share of the side.
        location: of the strip: "random" (drawn once for each image), "top" or "bottom".
        seed: of the places. The colours of the names do not depend on it.
        strips: (T, 3, h, s) uint8 or in [0, 1], such as learned ones, in place of those that are rendered.

    Attributes:
        features, labels: (N, D) and (N,) of the plain images.
        strips: (T, 3, h, s).
        pairs: `PastedFeatures`.

    Raises:
        ValueError: as `render_class_names` and `strip_tops`.

    Source: Shi & Yang 2023, Sec. 3.2.1. Explained in chapter 5.
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        images: ImageSet,
        ratio: float = 1 / 7,
        location: str = "random",
        seed: int = 0,
        strips: Tensor | None = None,
    ):
        self.images, self.labels, self.class_names = images, images.labels, images.class_names
        self.features = cache_features(clip.encode_image, images).images
        side = images.images.shape[3]
        if strips is None:
            strips = render_class_names(self.class_names, side, round(ratio * side)).to(images.images.device)
        self.strips, tops = strips, strip_tops(len(images), side, strips.shape[2], location, seed)
        self.pairs = PastedFeatures(clip.encode_image, images.images, strips, tops)

    def batches(self, batch_size: int) -> Batches:
        """Shuffled batches of (positions (B,), labels (B,))."""
        positions = torch.arange(len(self.labels), device=self.labels.device)
        return FeatureSet(positions, self.labels, self.class_names).batches(batch_size, shuffle=True)

    @torch.no_grad()
    def select(self, log_p: Callable[[Tensor], Tensor], count: int = 5) -> Reselected:
        """The best of the top candidates, with and without their names; see `reselect`.

        Args:
            log_p: image features (..., D) to log probabilities (..., T).
            count: number K of candidates.
        """

        def pasted(candidates: Tensor) -> Tensor:
            found = log_p(self.pairs(torch.arange(len(candidates), device=candidates.device), candidates))
            return found.gather(2, candidates[..., None])[..., 0]

        return reselect(log_p(self.features), pasted, count)

    @torch.no_grad()
    def attacked(self, text: Tensor, wrong: Tensor) -> dict[str, dict[str, float]]:
        """What a written name does: shares of the images, for the plain ones, with the true name, with a wrong one.

        Args:
            text: (T, D) unit text features.
            wrong: (N,) a wrong class for each image.

        Returns:
            For each of "plain", "true name", "wrong name": the share that is "right", whose "true score" was "raised"
            above that of the plain image, and that was "called by the wrong name".

        Source: Shi & Yang 2023, Fig. 1b; the attack is that of Goh et al. 2021.
        """
        own, rows = (self.features * text[self.labels]).sum(1), {}
        for view, written in {"plain": None, "true name": self.labels, "wrong name": wrong}.items():
            positions = torch.arange(len(wrong), device=wrong.device)
            shown = self.features if written is None else self.pairs(positions, written[:, None])[:, 0]
            said, raised = (shown @ text.T).argmax(1), (shown * text[self.labels]).sum(1) > own
            shares = {
                "right": said == self.labels,
                "true score raised": raised,
                "called by the wrong name": said == wrong,
            }
            rows[view] = {name: float(share.float().mean()) for name, share in shares.items()}
        return rows
