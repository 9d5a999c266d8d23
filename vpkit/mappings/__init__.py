"""From the source classes of a model to the classes of a task.

A mapping is an `nn.Module`, source logits (B, S) to target logits (B, T); a function of counts makes one. A new
assignment is a function `(counts, probability) -> mapping`.
"""

from vpkit.mappings.one_to_one import (
    LabelMapping,
    PredictionCounts,
    count_predictions,
    frequency_mapping,
    hamming_distance,
    identity_mapping,
    optimal_mapping,
    random_mapping,
)
from vpkit.mappings.weighted import LinearMapping, WeightedMapping, bayesian_mapping, grouped_mapping, probability_mass

__all__ = [
    "LabelMapping",
    "LinearMapping",
    "PredictionCounts",
    "WeightedMapping",
    "bayesian_mapping",
    "count_predictions",
    "frequency_mapping",
    "grouped_mapping",
    "hamming_distance",
    "identity_mapping",
    "optimal_mapping",
    "probability_mass",
    "random_mapping",
]
