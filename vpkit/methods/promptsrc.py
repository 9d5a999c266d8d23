"""PromptSRC: prompts on both sides of CLIP, held near what the model says without them, and averaged over epochs."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, l1_loss

from vpkit.methods.dpt import DualPromptClassifier
from vpkit.prompts.patch_embeddings import PatchEmbeddings

__all__ = ["GaussianAverage", "PromptSRC"]


class PromptSRC(DualPromptClassifier):
    """VLP (learned text and tokens) whose features and logits are held near those of the model without prompts.

    The loss is cross-entropy + text_weight abs(t - t0) + image_weight abs(f - f0) + KL(zero-shot from prompted), the
    first two mean absolute differences of unit features. t0 is `written`: the paper's is the mean over 60 templates.

    Args:
        text_weight, image_weight: the paper's 25 and 10.
        others: as `DualPromptClassifier`; text and tokens are needed, class-aware blocks are not used.

    Raises:
        ValueError: no text, no tokens, or class-aware blocks.

    Source: Khattak et al. 2023 (Self-regulating Prompts), Eqs. 3 to 6; logits as in its released code.
    """

    def __init__(self, *args, text_weight: float = 25.0, image_weight: float = 10.0, **kwargs):
        super().__init__(*args, **kwargs)
        if self.text is None or self.tokens is None or len(self.tokens.class_aware):
            raise ValueError("PromptSRC needs text and plain tokens: give text= and tokens= without class-aware blocks")
        self.text_weight, self.image_weight = text_weight, image_weight

    def loss(self, images: Tensor | PatchEmbeddings, labels: Tensor) -> tuple[Tensor, Tensor]:
        features, text, *_ = self._features(images)
        logits = self._logits(features, text)
        loss = cross_entropy(logits, labels)
        if self.training:
            plain = self._plain(images)
            usual = self._logits(plain, self.written).log_softmax(1)
            loss = loss + self.text_weight * l1_loss(text, self.written) + self.image_weight * l1_loss(features, plain)
            loss = loss + kl_div(logits.log_softmax(1), usual, reduction="sum", log_target=True) / logits.numel()
        return loss, logits


class GaussianAverage:
    """The mean of a classifier's trained weights over epochs, weighed by a bell curve: `fit(..., before_epoch=it)`.

    Early epochs have learned little, late ones too much. After training, `load` puts the mean into the classifier.

    Args:
        mean, std: of the bell, in epochs from 1; the paper has 15 and 1 for 20 epochs (base to new), 45 and 5 for 50
            (few-shot).

    Source: Khattak et al. 2023, Sec. 3.2 (Gaussian weighted prompt aggregation).
    """

    def __init__(self, mean: float, std: float):
        self.mean, self.std = mean, std
        self._sum: dict[str, Tensor] = {}
        self._weight = 0.0

    def __call__(self, classifier: nn.Module, epoch: int) -> None:
        """Before epoch e the weights are those after epoch e - 1."""
        if epoch > 1:
            self._add(classifier, epoch - 1)
        self._last = epoch

    @torch.no_grad()
    def _add(self, classifier: nn.Module, epoch: int) -> None:
        weight = math.exp(-0.5 * ((epoch - self.mean) / self.std) ** 2)
        for name, value in classifier.named_parameters():
            if value.requires_grad:
                self._sum[name] = self._sum.get(name, torch.zeros_like(value)) + weight * value
        self._weight += weight

    @torch.no_grad()
    def load(self, classifier: nn.Module) -> None:
        """Add the state after the last epoch, and give the classifier the mean."""
        self._add(classifier, self._last)
        for name, value in classifier.named_parameters():
            if name in self._sum:
                value.copy_(self._sum[name] / self._weight)
