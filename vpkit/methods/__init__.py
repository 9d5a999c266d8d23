"""The methods of the papers and their baselines: each a classifier with `loss(images, labels) -> (loss, logits)`.

All go through `vpkit.training.fit`. A new method is such a module; it needs no change to the loop.
"""

from vpkit.methods import baselines, black_box, clip_vp, coop, dpt, ilm_vp, logoprompt, promptsrc, protocols, sides, vp
from vpkit.methods.baselines import (
    CLAP,
    FineTuned,
    TipAdapter,
    fine_tune,
    gaussian_discriminant,
    linear_probe,
    tune_votes,
)
from vpkit.methods.black_box import ScoresOnly
from vpkit.methods.coop import KgCoOp, TextPromptedClassifier, train_text
from vpkit.methods.dpt import DualPromptClassifier
from vpkit.methods.ilm_vp import CountingClassifier, remap, remap_from_training
from vpkit.methods.logoprompt import LoGoPromptClassifier, NamePastedImages
from vpkit.methods.promptsrc import GaussianAverage, PromptSRC
from vpkit.methods.protocols import base_to_new, evaluate_domains, harmonic_mean, join_tables, shifted_domains
from vpkit.methods.vp import PromptedClassifier, count_parameters

__all__ = [
    "CLAP",
    "CountingClassifier",
    "DualPromptClassifier",
    "FineTuned",
    "GaussianAverage",
    "KgCoOp",
    "LoGoPromptClassifier",
    "NamePastedImages",
    "PromptSRC",
    "PromptedClassifier",
    "ScoresOnly",
    "TextPromptedClassifier",
    "TipAdapter",
    "base_to_new",
    "baselines",
    "black_box",
    "clip_vp",
    "coop",
    "count_parameters",
    "dpt",
    "evaluate_domains",
    "fine_tune",
    "gaussian_discriminant",
    "harmonic_mean",
    "ilm_vp",
    "join_tables",
    "linear_probe",
    "logoprompt",
    "promptsrc",
    "protocols",
    "remap",
    "remap_from_training",
    "shifted_domains",
    "sides",
    "train_text",
    "tune_votes",
    "vp",
]
