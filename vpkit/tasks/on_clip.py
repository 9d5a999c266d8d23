"""CoOp, LoGoPrompt and DPT as classifiers of images, with one recipe each, for `fit_task` on a CLIP."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vpkit.datasets import ImageSet, cache_features
from vpkit.interfaces import Classifier
from vpkit.methods.coop import TextPromptedClassifier
from vpkit.methods.dpt import DualPromptClassifier, guide
from vpkit.methods.logoprompt import LoGoPromptClassifier, NamePastedImages, PastedFeatureCache, PastedImages
from vpkit.models.clip import FrozenCLIP
from vpkit.models.frozen import HoldsFrozen
from vpkit.prompts.context import coop_context
from vpkit.prompts.name_strips import render_class_names, strip_offsets
from vpkit.prompts.patch_embeddings import cache_patches
from vpkit.prompts.templates import fill_templates
from vpkit.prompts.tokens import ClassAwareTokens, TokenPrompt
from vpkit.training.history import History
from vpkit.training.loop import fit
from vpkit.training.schedules import cosine

__all__ = ["ON_CLIP", "OnImages", "build_on_clip", "fit_on_clip"]

ON_CLIP = ("CoOp", "LoGoPrompt", "DPT")
_RATIO, _PLACE = 1 / 7, "bottom"  # of LoGoPrompt's strips: the place of an image must not depend on its neighbours


class OnImages(HoldsFrozen):
    """A classifier of a CLIP's features, or of images with names pasted on them, as one of images (B, 3, s, s).

    Args:
        clip: the frozen model.
        classifier: `TextPromptedClassifier` or `LoGoPromptClassifier`.
        class_names: rendered, for LoGoPrompt.
    """

    clip: FrozenCLIP
    strips: Tensor

    def __init__(self, clip: FrozenCLIP, classifier: TextPromptedClassifier | LoGoPromptClassifier, class_names):
        super().__init__()
        self.hold("clip", clip)
        self.classifier = classifier
        if isinstance(classifier, LoGoPromptClassifier):
            strips = render_class_names(class_names, clip.image_size, round(_RATIO * clip.image_size))
            self.register_buffer("strips", strips.to(clip.mean.device), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self._inputs(images))

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier.loss(self._inputs(images), labels)

    def _inputs(self, images: Tensor) -> Any:
        features = self.clip.encode_image(images)
        if not isinstance(self.classifier, LoGoPromptClassifier):
            return features
        count, side = len(images), self.clip.image_size
        tops = strip_offsets(count, side, self.strips.shape[2], _PLACE).to(images.device)
        pixels = (255 * images).round().byte()
        pairs = PastedFeatureCache(self.clip.encode_image, pixels, self.strips, tops)
        return PastedImages(features, torch.arange(count, device=images.device), pairs)


def build_on_clip(method: str, clip: FrozenCLIP, class_names: Sequence[str]) -> OnImages | DualPromptClassifier:
    """What `method` is before it has learned anything."""
    text = coop_context(clip, class_names)
    if method == "CoOp":
        return OnImages(clip, TextPromptedClassifier(text, clip.logit_scale), class_names)
    if method == "LoGoPrompt":
        return OnImages(clip, LoGoPromptClassifier(text, clip.logit_scale), class_names)
    visual = clip.image_transformer("DPT's tokens")
    width, last = visual.positional_embedding.shape[1], len(visual.transformer.resblocks)
    aware = {last: ClassAwareTokens(clip.embed_dim, width, len(class_names))}
    written = clip.encode_text(fill_templates("a photo of a {}.", class_names))
    return DualPromptClassifier(clip, TokenPrompt(clip, class_aware=aware), written, text)


def fit_on_clip(
    classifier: OnImages | DualPromptClassifier, train: ImageSet, val: ImageSet, epochs: int, **options
) -> History:
    """Train by SGD with momentum on what is computed once: features, pasted features or embedded patches.

    Args:
        train, val: images of the side that the CLIP takes, on its device.
        options: for `fit`, such as `checkpoint`.
    """
    clip = classifier.clip
    if isinstance(classifier, DualPromptClassifier):
        assert classifier.tokens is not None
        assert classifier.text is not None
        sides = [(classifier.tokens, 0.03), (classifier.text, 0.005)]
        groups = [{"params": list(side.parameters()), "lr": rate} for side, rate in sides]
        inner: Classifier = classifier
        parts: list[Any] = [cache_patches(clip, part) for part in (train, val)]
        options["before_epoch"] = guide(max(1, epochs // 3))
    else:
        inner = classifier.classifier
        groups = [{"params": list(inner.parameters()), "lr": 0.02}]
        if isinstance(inner, LoGoPromptClassifier):
            parts = [NamePastedImages(clip, part, _RATIO, _PLACE) for part in (train, val)]
        else:
            parts = [cache_features(clip.encode_image, part) for part in (train, val)]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    batches = parts[0].batches(32, shuffle=True), parts[1].batches()
    return fit(inner, *batches, optimizer, epochs, schedule=cosine, **options)
