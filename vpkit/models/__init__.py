"""Frozen models: classifiers of images, and CLIP. They normalise [0, 1] pixels inside and never train.

A new model is a row of `FROZEN_MODELS` or `CLIP_MODELS`, or a `FrozenModel` around any network.
"""

from vpkit.models.clip import CLIP_MODELS, FrozenCLIP, load_clip
from vpkit.models.frozen import FROZEN_MODELS, FrozenModel, load_frozen
from vpkit.models.preprocessing import resize_of

__all__ = ["CLIP_MODELS", "FROZEN_MODELS", "FrozenCLIP", "FrozenModel", "load_clip", "load_frozen", "resize_of"]
