"""The methods of the papers and their baselines: each a classifier with `loss(images, labels) -> (loss, logits)`.

All go through `vpkit.training.fit`. A new method is such a module; it needs no change to the loop.
"""

from vpkit.methods import baselines, black_box, clip_vp, coop, dpt, ilm_vp, logoprompt, protocols, vp
from vpkit.methods.baselines import FineTuned, TipAdapter, gaussian_discriminant, linear_probe
from vpkit.methods.black_box import ScoresOnly
from vpkit.methods.coop import TextPromptedClassifier
from vpkit.methods.dpt import DualPromptClassifier
from vpkit.methods.ilm_vp import CountingClassifier, remap, remap_from_training
from vpkit.methods.logoprompt import LoGoPromptClassifier, NamePastedImages
from vpkit.methods.protocols import base_to_new, evaluate_domains, harmonic_mean, shifted_domains
from vpkit.methods.vp import PromptedClassifier, count_parameters

__all__ = [
    "CountingClassifier",
    "DualPromptClassifier",
    "FineTuned",
    "LoGoPromptClassifier",
    "NamePastedImages",
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
    "gaussian_discriminant",
    "harmonic_mean",
    "ilm_vp",
    "linear_probe",
    "logoprompt",
    "protocols",
    "remap",
    "remap_from_training",
    "shifted_domains",
    "vp",
]
