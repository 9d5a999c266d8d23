"""The methods of the papers and their baselines: each a classifier with `loss(images, labels) -> (loss, logits)`.

All go through `vpkit.training.fit`. A new method is such a module; it needs no change to the loop.
"""

from vpkit.methods.baselines import FineTuned, linear_probe, tip_adapter_votes
from vpkit.methods.coop import TextPromptedClassifier
from vpkit.methods.dpt import DualPromptClassifier, class_aware_loss
from vpkit.methods.logoprompt import (
    NamePastedImages,
    PastedFeatureCache,
    Selection,
    hard_negatives,
    harmonic_mean,
    min_max_loss,
    reselect,
)
from vpkit.methods.vp import PromptedClassifier, count_parameters

__all__ = [
    "DualPromptClassifier",
    "FineTuned",
    "NamePastedImages",
    "PastedFeatureCache",
    "PromptedClassifier",
    "Selection",
    "TextPromptedClassifier",
    "class_aware_loss",
    "count_parameters",
    "hard_negatives",
    "harmonic_mean",
    "linear_probe",
    "min_max_loss",
    "reselect",
    "tip_adapter_votes",
]
