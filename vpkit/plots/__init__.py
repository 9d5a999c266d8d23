"""Figures of the book. Every function takes tensors, tables or a `History` and returns a matplotlib figure."""

from vpkit.plots.attention import show_attention
from vpkit.plots.images import show_examples, show_images, show_prompt
from vpkit.plots.mappings import plot_dynamics, plot_gains, plot_mapping, show_explanations
from vpkit.plots.results import (
    plot_accuracies,
    plot_confusion,
    plot_history,
    plot_queries,
    plot_sizes,
    plot_spread,
    show_table,
)
from vpkit.plots.style import METHOD_COLORS, set_style
from vpkit.plots.widgets import browse, slide

__all__ = [
    "METHOD_COLORS",
    "browse",
    "plot_accuracies",
    "plot_confusion",
    "plot_dynamics",
    "plot_gains",
    "plot_history",
    "plot_mapping",
    "plot_queries",
    "plot_sizes",
    "plot_spread",
    "set_style",
    "show_attention",
    "show_examples",
    "show_explanations",
    "show_images",
    "show_prompt",
    "show_table",
    "slide",
]
