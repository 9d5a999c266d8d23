"""What was learned, looked at: examples of a source class, attention, distances between sets of features.

Nothing here trains or changes a model; whatever is drawn is drawn by `vpkit.plots`.
"""

from vpkit.analysis.attention import (
    attention_in_box,
    candidate_attention,
    class_attention,
    look_at_pairs,
)
from vpkit.analysis.explanation import explain_by_example, source_probabilities
from vpkit.analysis.feature_statistics import (
    distance_and_diversity,
    frechet_distance,
    mean_pairwise_distance,
)

__all__ = [
    "attention_in_box",
    "candidate_attention",
    "class_attention",
    "distance_and_diversity",
    "explain_by_example",
    "frechet_distance",
    "look_at_pairs",
    "mean_pairwise_distance",
    "source_probabilities",
]
