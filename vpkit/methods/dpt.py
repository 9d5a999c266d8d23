"""VPT, VLP and DPT as one classifier: learned text, learned tokens, class-aware tokens."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vpkit.models.clip import FrozenCLIP, clip_logits
from vpkit.models.frozen import HoldsFrozen
from vpkit.prompts.context import ContextPrompt
from vpkit.prompts.patch_embeddings import PatchEmbeddings
from vpkit.prompts.tokens import TokenPrompt

__all__ = ["DualPromptClassifier", "class_aware_loss", "guide"]


class DualPromptClassifier(HoldsFrozen):
    """Images to logits through prompts on both sides of a frozen CLIP.

    CoOp: learned text. VPT: tokens and hand-written text. VLP: tokens and learned text. DPT: VLP with class-aware
    blocks in the tokens.

    Args:
        clip: the frozen model.
        tokens: `TokenPrompt`, with or without class-aware blocks; None leaves the images as they are (CoOp).
        written: (T, D) unit features of the hand-written sentences: zero-shot CLIP, computed once.
        text: `ContextPrompt`; None keeps the hand-written text (VPT). Without either it is zero-shot CLIP.
        candidates: number K_N of classes that get a token of their own, cut to T.
        alpha: weight of the auxiliary loss.
        beta: weight of the main loss while `guided`.

    Attributes:
        guided: the knowledge-guided warm-up (Eq. 12) in place of Eq. 11; set it from `before_epoch`.

    Raises:
        ValueError: fewer than one candidate, or class-aware blocks without learned text.

    Source: Xing et al. 2023, Eqs. 8 to 12. Explained in chapter 6.
    """

    clip: FrozenCLIP
    written: Tensor

    def __init__(
        self,
        clip: FrozenCLIP,
        tokens: TokenPrompt | None,
        written: Tensor,
        text: ContextPrompt | None = None,
        candidates: int = 10,
        alpha: float = 0.3,
        beta: float = 0.1,
    ):
        super().__init__()
        if candidates < 1:
            raise ValueError(f"candidates={candidates}: expected at least 1 class-aware token")
        if tokens is not None and len(tokens.class_aware) and text is None:
            raise ValueError("class-aware tokens are made from learned text features: give text= a ContextPrompt")
        self.hold("clip", clip)
        self.tokens, self.text = tokens, text
        self.candidates, self.alpha, self.beta, self.guided = min(candidates, len(written)), alpha, beta, False
        self.register_buffer("written", written, persistent=False)

    def forward(self, images: Tensor | PatchEmbeddings) -> Tensor:
        """Images (B, 3, s, s) in [0, 1], or a batch of `cache_patches`, to logits (B, T)."""
        return self._logits(*self._features(images)[:2])

    def loss(self, images: Tensor | PatchEmbeddings, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 11, or Eq. 12 while guided; and the logits of the full model."""
        features, text, class_logits, chosen, plain = self._features(images)
        logits = self._logits(features, text)
        loss = cross_entropy(logits, labels)
        if self.guided and self.training and self.text is not None and self.tokens is not None:
            by_text = cross_entropy(self._logits(self._plain(images) if plain is None else plain, text), labels)
            by_tokens = cross_entropy(self._logits(features, self.written), labels)
            loss = by_text + by_tokens + self.beta * loss
        if class_logits:  # the mean over blocks, as the released code has it, so that alpha means one thing
            auxiliary = [class_aware_loss(found, chosen, labels) for found in class_logits]
            loss = loss + self.alpha * torch.stack(auxiliary).mean()
        return loss, logits

    def choose(self, plain: Tensor) -> Tensor:
        """Unit features of plain images (B, D) to the classes that get a token: the K_N likeliest by zero-shot."""
        return clip_logits(plain, self.written).topk(self.candidates, dim=1).indices

    def _features(self, images: Tensor | PatchEmbeddings):
        # (T, D), not normalised: CAVPT takes them as they are
        raw = self.written if self.text is None else self.text(unit=False)
        text = nn.functional.normalize(raw, dim=-1)
        if self.tokens is None or not len(self.tokens.class_aware):
            features = self._plain(images) if self.tokens is None else self.tokens(images).features
            return features, text, [], None, None
        plain = self._plain(images)
        chosen = self.choose(plain)
        prompted = self.tokens(images, raw[chosen])
        return prompted.features, text, prompted.class_logits, chosen, plain

    @torch.no_grad()
    def _plain(self, images: Tensor | PatchEmbeddings) -> Tensor:
        return images.plain if isinstance(images, PatchEmbeddings) else self.clip.encode_image(images)

    def _logits(self, features: Tensor, text: Tensor) -> Tensor:
        return clip_logits(features, text, self.clip.logit_scale)


def class_aware_loss(class_logits: Tensor, chosen: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the tokens made for the true class; 0 if no image has one.

    Args:
        class_logits: (B, K, T) from a class-aware block.
        chosen: (B, K) candidate classes.
        labels: (B,).

    Source: Xing et al. 2023, Eq. 8, over the rows that have the true class (released code).
    """
    true = (chosen == labels[:, None]).flatten()  # (B K,); which rows they are, a GPU need not be asked
    losses = cross_entropy(class_logits.flatten(0, 1), labels.repeat_interleave(chosen.shape[1]), reduction="none")
    return torch.where(true, losses, 0.0).sum() / true.sum().clamp(min=1)


def guide(epochs: int) -> Callable[[DualPromptClassifier, int], None]:
    """The knowledge-guided warm-up over the first `epochs`, for `fit(..., before_epoch=guide(10))` (Eq. 12)."""

    def before_epoch(classifier: DualPromptClassifier, epoch: int) -> None:
        classifier.guided = epoch <= epochs

    return before_epoch
