"""Learned tokens inside CLIP's image transformer: VPT shallow and deep, and DPT's class-aware tokens."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vpkit.models.clip import FrozenCLIP
from vpkit.models.frozen import HoldsFrozen
from vpkit.prompts.patch_embeddings import PatchEmbeddings

__all__ = ["ClassAwareTokens", "TokenPrompt", "TokenPrompted"]


class TokenPrompt(HoldsFrozen):
    """VPT on CLIP: learned tokens beside the image's own, through the frozen transformer to features (B, D).

    Deep: every block gets P tokens of its own, and what they become is thrown away. Shallow: P tokens before the first
    block go through all of them. They get no position embedding and start from N(0, 0.02^2).

    Args:
        clip: a frozen CLIP whose image tower is open_clip's `VisionTransformer`.
        count: number P of tokens a block; with 0 the features are CLIP's own.
        deep: tokens for every block, else for the first only.
        class_aware: blocks (1..L) whose tokens come from a `ClassAwareTokens` instead; one module a block, or one
            module for all (shared weights). These blocks have no learned tokens of their own.

    Raises:
        ValueError: an image tower that is not a transformer, more tokens than patches, a block that does not exist.

    Source: Jia et al. 2022 (VPT); Xing et al. 2023, Eqs. 4, 5 and 10. Explained in chapter 6.
    """

    clip: FrozenCLIP

    def __init__(
        self,
        clip: FrozenCLIP,
        count: int = 10,
        deep: bool = True,
        class_aware: "dict[int, ClassAwareTokens] | None" = None,
    ):
        super().__init__()
        visual, class_aware = clip.image_transformer(), class_aware or {}
        patches = visual.positional_embedding.shape[0] - 1
        if not 0 <= count <= 4 * patches:
            raise ValueError(f"count={count}: expected 0..{4 * patches} tokens beside {patches} patches")
        blocks = len(visual.transformer.resblocks)
        wrong = [block for block in class_aware if not 1 <= block <= blocks]
        if wrong:
            raise ValueError(f"block {wrong[0]} does not exist: this image tower has blocks 1..{blocks}")
        if class_aware and not deep:
            raise ValueError("class-aware tokens replace those of a block: use deep=True")
        self.hold("clip", clip)
        self.deep, self.blocks = deep, blocks
        own = [block for block in range(1, blocks + 1) if block not in class_aware] if deep else [1]
        width = visual.positional_embedding.shape[1]
        device = visual.positional_embedding.device
        self.tokens = nn.ParameterDict(
            {str(block): nn.Parameter(0.02 * torch.randn(count, width).to(device)) for block in own if count}
        )
        unique = list(dict.fromkeys(class_aware.values()))
        self.class_aware = nn.ModuleList(unique).to(device)
        self._module_of = {block: unique.index(module) for block, module in class_aware.items()}

    def forward(self, images: Tensor | PatchEmbeddings, queries: Tensor | None = None) -> "TokenPrompted":
        """Images to unit features and what the class-aware blocks gave.

        Args:
            images: (B, 3, s, s) in [0, 1], or what `cache_patches` made of them.
            queries: (B, K, D) text features for the class-aware blocks, not normalised.
        """
        clip = self.clip
        visual = clip.network.visual
        hidden = images.tokens if isinstance(images, PatchEmbeddings) else clip.embed_patches(images)
        count, kept, class_logits = *hidden.shape[:2], []
        for number, block in enumerate(visual.transformer.resblocks, 1):
            if number in self._module_of:
                made = self.class_aware[self._module_of[number]](hidden[:, :kept], queries)
                class_logits.append(made.class_logits)
                hidden = torch.cat([hidden, made.tokens.to(hidden.dtype)], 1)
            elif str(number) in self.tokens:
                hidden = torch.cat([hidden, self.tokens[str(number)].expand(count, -1, -1).to(hidden.dtype)], 1)
            hidden = block(hidden)
            if self.deep:
                hidden = hidden[:, :kept]
        return TokenPrompted(clip.pool_tokens(hidden[:, :kept]), class_logits)


class TokenPrompted(NamedTuple):
    """Unit image features (B, D), and for each class-aware block its logits (B, K, T)."""

    features: Tensor
    class_logits: list[Tensor]


class Made(NamedTuple):
    """Tokens (B, K, d) and logits (B, K, T) of one class-aware block."""

    tokens: Tensor
    class_logits: Tensor


class ClassAwareTokens(nn.Module):
    """DPT's CAVPT: one token for each candidate class, from the text features and the block's own input.

    Queries are the candidates' text features through a linear map; keys and values are the block's input tokens,
    detached, and a learned bank. Single head, d_k = 32: softmax(q W_q (k W_k)^T / sqrt(d_k)) k W_v = o. The tokens are
    LN(o + q); LN(o) goes to a classifier that only training uses.

    Args:
        embed_dim: length D of the text features.
        width: length d of the image tokens.
        num_target: number of classes T of the auxiliary classifier.
        bank: number of learned keys (10 in the released code).
        detach: whether gradients stop at the block's input (as in the released code).

    Source: Xing et al. 2023, Eqs. 6 to 8; details from the released code. Explained in chapter 6.
    """

    def __init__(self, embed_dim: int, width: int, num_target: int, bank: int = 10, detach: bool = True):
        super().__init__()
        key_width = 32
        self.detach, self.key_width = detach, key_width
        self.query = nn.Linear(embed_dim, width)
        self.to_query, self.to_key = nn.Linear(width, key_width, bias=False), nn.Linear(width, key_width, bias=False)
        self.to_value = nn.Linear(width, width, bias=False)
        self.bank = nn.Parameter(0.02 * torch.randn(bank, width))
        self.token_norm, self.class_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.classifier = nn.Linear(width, num_target, bias=False)

    def forward(self, hidden: Tensor, queries: Tensor) -> Made:
        """Input tokens of the block (B, n, d) and text features (B, K, D) of the candidates."""
        keys = torch.cat([hidden.detach() if self.detach else hidden, self.bank.expand(hidden.shape[0], -1, -1)], 1)
        asked = self.query(queries)  # (B, K, d)
        weights = self._weights(asked, keys)
        found = self.to_value(weights @ keys)
        return Made(self.token_norm(found + asked), self.classifier(self.class_norm(found)))

    def attention(self, hidden: Tensor, queries: Tensor) -> Tensor:
        """Where each candidate is looked for: its attention (B, K, n) to the block's own input tokens."""
        keys = torch.cat([hidden, self.bank.expand(hidden.shape[0], -1, -1)], 1)
        return self._weights(self.query(queries), keys)[..., : hidden.shape[1]]

    def _weights(self, asked: Tensor, keys: Tensor) -> Tensor:
        return (self.to_query(asked) @ self.to_key(keys).transpose(1, 2) / self.key_width**0.5).softmax(-1)
