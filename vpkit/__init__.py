"""vpkit: visual prompting in plain PyTorch, the package behind the book of the same name.

Import it before torch: it asks OpenMP to let threads that wait sleep, which has to be said before torch loads OpenMP.
"""

import os

# By default they spin at the end of every layer, and a core that another program wants is lost to both. A setting of
# the user's own stays. See benchmarks/busy.py and the page on speed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from vpkit.attention_maps import class_attention, share_inside
from vpkit.baselines import FineTuned, linear_probe, tip_adapter_votes
from vpkit.classifiers import PromptedClassifier, count_parameters
from vpkit.clip_models import CLIP_MODELS, load_clip
from vpkit.context_prompts import ContextPrompt, ContextShift, GeneratedContext, TextPromptedClassifier
from vpkit.datasets import DATASETS, FeatureSet, ImageSet, cache_features, icon_pairs, load_dataset
from vpkit.dual_prompts import DualPromptClassifier, class_aware_loss
from vpkit.embedded_images import embed_images
from vpkit.explanation import explain_by_example
from vpkit.feature_statistics import frechet_distance, mean_pairwise_distance
from vpkit.frozen_clip import FrozenCLIP
from vpkit.frozen_models import FROZEN_MODELS, FrozenModel, load_frozen
from vpkit.label_mapping import (
    LabelMapping,
    PredictionCounts,
    count_predictions,
    frequency_mapping,
    hamming_distance,
    identity_mapping,
    optimal_mapping,
    random_mapping,
)
from vpkit.name_selection import Reselected, hard_negatives, harmonic_mean, min_max_loss, reselect
from vpkit.pasted_features import NamedImages, PastedFeatures
from vpkit.pixel_prompts import ExpandPrompt, PadPrompt, PatchPrompt
from vpkit.prompt_files import load_prompt, save_prompt, study_prompts
from vpkit.rendered_names import paste, render_class_names, strip_tops
from vpkit.results import History, load_paper_results, load_runs, load_study, save_run
from vpkit.schedules import constant_then_cosine, cosine, multistep, warmup_cosine
from vpkit.session import save_table, start
from vpkit.text_prompts import clip_templates, fill_templates
from vpkit.training import Evaluation, evaluate, fit, train_epoch
from vpkit.visual_tokens import ClassAwareTokens, TokenPrompt
from vpkit.weighted_mapping import (
    LinearMapping,
    WeightedMapping,
    bayesian_mapping,
    grouped_mapping,
    probability_mass,
)

__version__ = "0.1.0"

__all__ = [
    "CLIP_MODELS",
    "DATASETS",
    "FROZEN_MODELS",
    "ClassAwareTokens",
    "ContextPrompt",
    "ContextShift",
    "DualPromptClassifier",
    "Evaluation",
    "ExpandPrompt",
    "FeatureSet",
    "FineTuned",
    "FrozenCLIP",
    "FrozenModel",
    "GeneratedContext",
    "History",
    "ImageSet",
    "LabelMapping",
    "LinearMapping",
    "NamedImages",
    "PadPrompt",
    "PastedFeatures",
    "PatchPrompt",
    "PredictionCounts",
    "PromptedClassifier",
    "Reselected",
    "TextPromptedClassifier",
    "TokenPrompt",
    "WeightedMapping",
    "bayesian_mapping",
    "cache_features",
    "class_attention",
    "class_aware_loss",
    "clip_templates",
    "constant_then_cosine",
    "cosine",
    "count_parameters",
    "count_predictions",
    "embed_images",
    "evaluate",
    "explain_by_example",
    "fill_templates",
    "fit",
    "frechet_distance",
    "frequency_mapping",
    "grouped_mapping",
    "hamming_distance",
    "hard_negatives",
    "harmonic_mean",
    "icon_pairs",
    "identity_mapping",
    "linear_probe",
    "load_clip",
    "load_dataset",
    "load_frozen",
    "load_paper_results",
    "load_prompt",
    "load_runs",
    "load_study",
    "mean_pairwise_distance",
    "min_max_loss",
    "multistep",
    "optimal_mapping",
    "paste",
    "probability_mass",
    "random_mapping",
    "render_class_names",
    "reselect",
    "save_prompt",
    "save_run",
    "save_table",
    "share_inside",
    "start",
    "strip_tops",
    "study_prompts",
    "tip_adapter_votes",
    "train_epoch",
    "warmup_cosine",
]
