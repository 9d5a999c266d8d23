"""vpkit: visual prompting in plain PyTorch, the package behind the book of the same name.

Import it before torch: it asks OpenMP to let threads that wait sleep, which has to be said before torch loads OpenMP.
"""

import os

# By default they spin at the end of every layer, and a core that another program wants is lost to both. A setting of
# the user's own stays. See benchmarks/busy.py and the page on speed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# What Apple's GPUs lack is computed on the CPU, and torch warns of it; without this it would be an error.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

from importlib import import_module

from vpkit import analysis, book, datasets, mappings, methods, models, prompts, training
from vpkit.book import load_paper_results, load_study, save_table, start
from vpkit.datasets import ImageSet, load_dataset, load_splits
from vpkit.methods import PromptedClassifier, count_parameters
from vpkit.models import load_clip, load_frozen
from vpkit.training import evaluate, fit, train_epoch

__version__ = "0.2.0"

__all__ = [
    "ImageSet",
    "PromptedClassifier",
    "analysis",
    "book",
    "count_parameters",
    "datasets",
    "evaluate",
    "fit",
    "load_clip",
    "load_dataset",
    "load_frozen",
    "load_paper_results",
    "load_splits",
    "load_study",
    "mappings",
    "methods",
    "models",
    "plots",
    "prompts",
    "save_table",
    "start",
    "tasks",
    "train_epoch",
    "training",
]


def __getattr__(name: str):
    """`vpkit.plots` and `vpkit.tasks` are loaded when first asked for: their libraries take a second."""
    if name in ("plots", "tasks"):
        return import_module(f"vpkit.{name}")
    raise AttributeError(f"vpkit has no {name!r}")
