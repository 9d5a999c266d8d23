"""LoGoPrompt's selection: the true class must win with and without its name on the image, and no other may."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vpkit.datasets.encoded_set import EncodedSet, cache_features
from vpkit.datasets.image_set import Batches, ImageSet
from vpkit.models.clip import FrozenCLIP
from vpkit.prompts.name_strips import paste, render_class_names, strip_offsets

__all__ = [
    "NamePastedImages",
    "PastedFeatureCache",
    "Selection",
    "hard_negatives",
    "harmonic_mean",
    "min_max_loss",
    "reselect",
]


def hard_negatives(logits: Tensor, labels: Tensor, count: int = 5) -> Tensor:
    """The most probable wrong classes of each image: (B, T) logits and (B,) labels to (B, min(count, T - 1)).

    No gradient passes through the ranking. `count` is cut to the wrong classes there are (EuroSAT's halves have 4).

    Raises:
        ValueError: a count below 1, fewer than two classes.
    """
    if count < 1:
        raise ValueError(f"count={count}: the loss needs at least 1 negative class")
    if logits.shape[1] < 2:
        raise ValueError(f"{logits.shape[1]} class: there is no wrong one to tell it from")
    wrong = logits.detach().scatter(1, labels[:, None], float("-inf"))
    return wrong.topk(min(count, logits.shape[1] - 1), dim=1).indices


def min_max_loss(plain: Tensor, with_name: Tensor, named: Tensor, include_positive: bool = True) -> Tensor:
    """The min-max contrastive loss, mean over the batch, from *log* probabilities.

    Args:
        plain: (B, T) log p(c | x).
        with_name: (B, 1 + K) log p(c | x_c), each class with its own name on the image.
        named: (B, 1 + K) the classes c: first the true one, then K wrong ones.
        include_positive: InfoNCE with the positive in the denominator, log(1 + e^L). False is Eq. 3 as printed, which
            is not bounded below.

    Source: Shi & Yang 2023, Eq. 3. Explained in chapter 5.
    """
    without = plain.gather(1, named)
    positive = torch.minimum(without[:, 0], with_name[:, 0])
    negative = torch.maximum(without[:, 1:], with_name[:, 1:]).logsumexp(1)
    printed = negative - positive
    return (torch.nn.functional.softplus(printed) if include_positive else printed).mean()


class Selection(NamedTuple):
    """What `reselect` decided: predictions (B,), candidates (B, K), their scores (B, K), and where the pasted names
    changed the plain prediction (B,) bool."""

    prediction: Tensor
    candidates: Tensor
    scores: Tensor
    changed: Tensor


def reselect(plain: Tensor, pasted, count: int = 5) -> Selection:
    """Inference: the best of the top candidates by max(p(c | x), p(c | x_c)).

    Args:
        plain: (B, T) log p(c | x).
        pasted: function from candidates (B, K) to log p(c_k | x_{c_k}) (B, K).
        count: number K of candidates, cut to T.

    Raises:
        ValueError: a count below 1.

    Source: Shi & Yang 2023, Sec. 3.2.2. Explained in chapter 5.
    """
    if count < 1:
        raise ValueError(f"count={count}: selection needs at least 1 candidate")
    top = plain.topk(min(count, plain.shape[1]), dim=1)
    scores = torch.maximum(top.values, pasted(top.indices))
    prediction = top.indices.gather(1, scores.argmax(1, keepdim=True))[:, 0]
    return Selection(prediction, top.indices, scores, prediction != top.indices[:, 0])


def harmonic_mean(base: float, new: float) -> float:
    """H = 2 b n / (b + n) of two accuracies, 0 if both are 0 (base-to-new generalisation)."""
    return 2 * base * new / (base + new) if base + new else 0.0


class PastedFeatureCache:
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


class NamePastedImages:
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
        pairs: `PastedFeatureCache`.

    Raises:
        ValueError: as `render_class_names` and `strip_offsets`.

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
        self.features = cache_features(clip.encode_image, images).inputs
        side = images.images.shape[3]
        if strips is None:
            strips = render_class_names(self.class_names, side, round(ratio * side)).to(images.images.device)
        self.strips, tops = strips, strip_offsets(len(images), side, strips.shape[2], location, seed)
        self.pairs = PastedFeatureCache(clip.encode_image, images.images, strips, tops)

    def batches(self, batch_size: int) -> Batches:
        """Shuffled batches of (positions (B,), labels (B,))."""
        positions = torch.arange(len(self.labels), device=self.labels.device)
        return EncodedSet(positions, self.labels, self.class_names).batches(batch_size, shuffle=True)

    @torch.no_grad()
    def select(self, log_p: Callable[[Tensor], Tensor], count: int = 5) -> Selection:
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
