"""Images as the first block of CLIP's image transformer gets them, computed once for a whole split."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vpkit.datasets.feature_set import FeatureSet
from vpkit.datasets.image_set import ImageSet
from vpkit.frozen_clip import FrozenCLIP

if TYPE_CHECKING:  # takes a second to load
    from open_clip.transformer import VisionTransformer

__all__ = ["EmbeddedImages", "EmbeddedSet", "embed_images"]


class EmbeddedImages(NamedTuple):
    """A batch of images as the first block gets them, (B, 1 + N, d), and their plain unit features (B, D)."""

    tokens: Tensor
    plain: Tensor

    @property
    def device(self) -> torch.device:
        return self.plain.device


@dataclass
class EmbeddedSet:
    """A split after everything that comes before the first prompt; made by `embed_images`."""

    tokens: Tensor
    plain: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

    def batches(self, batch_size: int, shuffle: bool = False) -> "EmbeddedBatches":
        """Batches of (`EmbeddedImages`, labels), in a new order each pass if `shuffle`."""
        return EmbeddedBatches(self, batch_size, shuffle)


class EmbeddedBatches:
    """What `EmbeddedSet.batches` gives; see `Batches`, whose order it takes."""

    def __init__(self, embedded: EmbeddedSet, batch_size: int, shuffle: bool):
        positions = FeatureSet(torch.arange(len(embedded.labels)), embedded.labels, embedded.class_names)
        self.embedded, self.positions = embedded, positions.batches(batch_size, shuffle)
        self.class_names = embedded.class_names

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[tuple[EmbeddedImages, Tensor]]:
        for chosen, labels in self.positions:
            yield EmbeddedImages(self.embedded.tokens[chosen], self.embedded.plain[chosen]), labels


@torch.no_grad()
def embed_images(clip: FrozenCLIP, images: ImageSet, batch_size: int = 64) -> EmbeddedSet:
    """All that precedes the first prompt, computed once for a whole split.

    Without augmentation the patch embeddings of an image never change, nor do its plain features, by which DPT picks
    its candidates. They take (1 + N) d values an image: 74 kB on tiny-vit, 150 kB on ViT-B/32.

    Raises:
        ValueError: an image tower that is not a transformer.
    """
    parts = []
    for x, labels in images.batches(batch_size):
        tokens = embedded_tokens(clip, x)
        parts.append((tokens, finished_features(clip, clip.network.visual.transformer(tokens)), labels))
    tokens, plain, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return EmbeddedSet(tokens, plain, labels, images.class_names)


def embedded_tokens(clip: FrozenCLIP, images: Tensor) -> Tensor:
    """Images (B, 3, s, s) in [0, 1] to the tokens of the first block (B, 1 + N, d)."""
    return transformer_of(clip)._embeds((images - clip.mean[:, None, None]) / clip.std[:, None, None])


def finished_features(clip: FrozenCLIP, hidden: Tensor) -> Tensor:
    """The image's own tokens after the last block (B, 1 + N, d) to unit features (B, D)."""
    visual = clip.network.visual
    pooled, _ = visual._pool(hidden)
    return normalize((pooled if visual.proj is None else pooled @ visual.proj).float(), dim=-1)


def transformer_of(clip: FrozenCLIP, needed_by: str = "tokens") -> "VisionTransformer":
    """The image tower, if it is a transformer; else a ValueError that says what needs one."""
    from open_clip.transformer import VisionTransformer

    visual = clip.network.visual
    if not isinstance(visual, VisionTransformer):
        raise ValueError(
            f"the image tower is a {type(visual).__name__}: {needed_by} need a transformer, "
            "such as tiny-vit or ViT-B-32"
        )
    return visual
