"""Images as the first block of CLIP's image transformer gets them, computed once for a whole split."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vpkit.datasets.encoded_set import EncodedSet
from vpkit.datasets.image_set import ImageSet
from vpkit.models.clip import FrozenCLIP

__all__ = ["PatchEmbeddings", "cache_patches"]


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


@torch.no_grad()
def cache_patches(clip: FrozenCLIP, images: ImageSet, batch_size: int = 64) -> EncodedSet:
    """All that precedes the first prompt, computed once for a whole split.

    Without augmentation the patch embeddings of an image never change, nor do its plain features, by which DPT picks
    its candidates. They take (1 + N) d values an image: 74 kB on tiny-vit, 150 kB on ViT-B/32.

    Raises:
        ValueError: an image tower that is not a transformer.
    """
    parts = []
    for x, labels in images.batches(batch_size):
        tokens = clip.embed_patches(x)
        parts.append((tokens, clip.pool_tokens(clip.network.visual.transformer(tokens)), labels))
    tokens, plain, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return EncodedSet(PatchEmbeddings(tokens, plain), labels, images.class_names)
