"""CoOp, CoCoOp and KgCoOp: the words in front of a class name are learned, the images are left as they are."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from vpkit.models.clip import clip_logits
from vpkit.prompts.context import ContextPrompt, MetaNet
from vpkit.training.loop import fit
from vpkit.training.schedules import coop

__all__ = ["KgCoOp", "TextPromptedClassifier", "train_text"]

Trained = TypeVar("Trained", bound=nn.Module)


class TextPromptedClassifier(nn.Module):
    """Image *features* (B, D) to (B, T) logits through a text prompt: CoOp, or CoCoOp with a `shift`.

    Features and not images, because nothing on the image side is learned: `cache_features` computes them once. What
    has them as ``features``, such as `PastedImages`, will do.

    Args:
        prompt: gives the text features; called once per batch, or once in all while nothing is trained.
        logit_scale: `clip.logit_scale`.
        shift: CoCoOp's `MetaNet`: every image gets text features of its own.
        texts_at_once: with a `shift`, how many sentences go through the text tower together. The activations of one
            such part are held at a time, in training too, where they are computed a second time for the gradient.

    Source: Zhou et al. 2022 (CoOp, Eq. 2; CoCoOp, Eq. 3). Explained in chapter 5.
    """

    logit_scale: Tensor

    def __init__(self, prompt: nn.Module, logit_scale: Tensor, shift: MetaNet | None = None, texts_at_once: int = 1024):
        super().__init__()
        self.prompt, self.shift, self.texts_at_once = prompt, shift, texts_at_once
        self.register_buffer("logit_scale", logit_scale.detach().clone(), persistent=False)

    def forward(self, images: Any) -> Tensor:
        """Features (B, D), or what has them, to logits (B, T)."""
        features = getattr(images, "features", images)
        if self.shift is None:
            return clip_logits(features, self.prompt(), self.logit_scale)
        return self.logit_scale * torch.cat(
            [self._shifted(part, self.shift(part)) for part in features.split(self._images_at_once)]
        )

    def loss(self, images: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(images)
        return cross_entropy(logits, labels), logits

    @property
    def _images_at_once(self) -> int:
        return max(1, self.texts_at_once // len(self._context_prompt.class_names))

    @property
    def _context_prompt(self) -> ContextPrompt:
        assert isinstance(self.prompt, ContextPrompt)  # only such a prompt has something to shift
        return self.prompt

    def _shifted(self, features: Tensor, shifts: Tensor) -> Tensor:
        """Cosines (B, T) of images with the texts made for them, all in one pass of the text tower."""
        if torch.is_grad_enabled():
            return checkpoint(self._cosines, features, shifts, use_reentrant=False)
        return self._cosines(features, shifts)

    def _cosines(self, features: Tensor, shifts: Tensor) -> Tensor:
        texts = self._context_prompt(self._context_prompt.context + shifts[:, None, None])  # (B, T, D)
        return clip_logits(features[:, None], texts)[:, 0]


class KgCoOp(TextPromptedClassifier):
    """CoOp whose learned text may not go far from the hand-written one: what it gains for classes never trained on.

    The loss is cross-entropy + weight (1 - the mean cosine of learned and hand-written text features).

    Args:
        written: (T, D) unit features of the hand-written sentences.
        weight: the paper's lambda.

    Source: Yao et al. 2023 (Visual-Language Prompt Tuning with Knowledge-guided Context Optimization), Eqs. 4 and 5.
    """

    written: Tensor

    def __init__(self, prompt: nn.Module, logit_scale: Tensor, written: Tensor, weight: float = 8.0):
        super().__init__(prompt, logit_scale)
        self.weight = weight
        self.register_buffer("written", written.detach(), persistent=False)

    def loss(self, images: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        text = self.prompt()  # (T, D) unit
        logits = clip_logits(getattr(images, "features", images), text, self.logit_scale)
        return cross_entropy(logits, labels) + self.weight * (1 - (text * self.written).sum(1).mean()), logits


def train_text(
    classifier: Trained,
    split: Any,
    epochs: int,
    name: str = "",
    *,
    lr: float,
    lrs: Mapping[str, float] | None = None,
    batch_size: int = 32,
    weight_decay: float = 0.05,
    warmup_epochs: int = 0,
) -> Trained:
    """Train what a classifier has of learned text as CoOp does, in place, by SGD with momentum 0.9; returns it.

    Args:
        split: training images or features: anything with `.batches(...)`.
        name: of the run, see `fit`.
        lr: of contexts for each class, written or made; a fifth of it for one context for all classes.
        lrs: in its place for runs of these names.
        warmup_epochs: at a rate of 1e-5; with any, weights decay by 5e-4, as CoOp's do.

    Source: Zhou et al. 2022 (CoOp), Sec. 4.1 and released code. Explained in chapter 5.
    """
    prompt = getattr(classifier, "prompt", None)
    shared = isinstance(prompt, ContextPrompt) and prompt.context.ndim == 2
    rate = (lrs or {}).get(name, lr / 5 if shared else lr)
    decay = 5e-4 if warmup_epochs else weight_decay
    optimizer = torch.optim.SGD(classifier.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    batches, schedule = split.batches(batch_size, shuffle=True), coop(rate, warmup_epochs)
    fit(classifier, batches, None, optimizer, epochs, schedule=schedule, name=name, show=False)  # type: ignore[type-var]
    return classifier
