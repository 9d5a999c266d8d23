"""Images as the first block of CLIP's image transformer gets them, computed once for a whole split."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vpkit.datasets.encoded_set import AugmentedBatches, EncodedSet, crop_and_flip
from vpkit.datasets.image_set import ImageSet
from vpkit.models.clip import FrozenCLIP

__all__ = ["PatchEmbeddings", "cache_patches", "plain_features"]


@dataclass(frozen=True)
class PatchEmbeddings:
    """Images as the first block gets them, tokens (B, 1 + N, d), and their plain unit features (B, D)."""

    tokens: Tensor
    plain: Tensor

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, rows) -> "PatchEmbeddings":
        return PatchEmbeddings(self.tokens[rows], self.plain[rows])

    @property
    def device(self) -> torch.device:
        return self.plain.device

    @property
    def features(self) -> Tensor:
        """The plain unit features, for what has nothing in the image tower, such as KgCoOp or a linear probe."""
        return self.plain


@torch.no_grad()
def cache_patches(
    clip: FrozenCLIP, images: ImageSet, batch_size: int | None = None, augment: bool = False
) -> EncodedSet:
    """All that precedes the first prompt, computed once for a whole split.

    Without augmentation the patch embeddings of an image never change, nor do its plain features, by which DPT picks
    its candidates. They take (1 + N) d values an image: 74 kB on tiny-vit, 150 kB on ViT-B/32.

    Args:
        clip: the frozen model.
        images: as large as the model takes.
        batch_size: images embedded at a time; None: as `Batches` chooses for the device.
        augment: batches are made from the images instead, cropped and mirrored anew in each pass (`crop_and_flip`),
            which goes through the image tower twice; `inputs` are the plain ones.

    Raises:
        ValueError: an image tower that is not a transformer.
    """
    parts = [(embed(clip, x), labels) for x, labels in images.batches(batch_size)]
    tokens, plain = torch.cat([x.tokens for x, _ in parts]), torch.cat([x.plain for x, _ in parts])
    labels = torch.cat([labels for _, labels in parts])

    def anew(*options) -> AugmentedBatches:
        return AugmentedBatches(images.batches(*options), partial(embed, clip), crop_and_flip)

    return EncodedSet(PatchEmbeddings(tokens, plain), labels, images.class_names, anew if augment else None)


def plain_features(split: EncodedSet) -> EncodedSet:
    """Of what `cache_patches` made, the plain features (N, D) alone: for a linear probe, GDA and the like."""
    return EncodedSet(split.inputs.plain, split.labels, split.class_names)


def embed(clip: FrozenCLIP, images: Tensor) -> PatchEmbeddings:
    """Images (B, 3, h, h) in [0, 1] to what enters the first block, and to their plain features."""
    tokens = clip.embed_patches(images)
    return PatchEmbeddings(tokens, clip.pool_tokens(clip.network.visual.transformer(tokens)))
