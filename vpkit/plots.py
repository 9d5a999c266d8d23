"""Figures of the book. Every function takes tensors, tables or a `History` and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import Tensor, nn

__all__ = [
    "METHOD_COLORS",
    "plot_accuracies",
    "plot_history",
    "plot_mapping",
    "plot_sizes",
    "set_style",
    "show_images",
    "show_prompt",
]

# One colour a method throughout the book (Okabe and Ito's colour-blind safe set).
METHOD_COLORS = {
    "unprompted": "#999999",
    "linear probe": "#000000",
    "padding": "#0072B2",
    "fixed patch": "#E69F00",
    "random patch": "#009E73",
    "one pixel": "#CC79A7",
    "RLM": "#56B4E9",
    "FLM": "#D55E00",
    "FLM soft": "#E69F00",
    "ILM": "#0072B2",
}
_CHANCE = {"color": "#999999", "linestyle": ":", "linewidth": 1}


def set_style() -> None:
    """The book's look: small figures, light grid."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.8)
    plt.rcParams.update({"figure.figsize": (3.6, 2.6), "figure.dpi": 110, "savefig.bbox": "tight"})


def show_images(images: Tensor, titles: list[str] | None = None, columns: int = 8, side: float = 1.0):
    """A grid of images, (N, 3, h, w), uint8 or floats in [0, 1] (values beyond are clipped)."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    text_room = 0.28 if titles else 0.0
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * side, rows * (side + text_room)), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for position, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        axis.imshow(_displayable(image))
        if titles:
            axis.set_title(titles[position], fontsize=7)
    return _finished(figure)


def show_prompt(prompt: nn.Module, image: Tensor, model: nn.Module | None = None, side: float = 1.5):
    """A prompt three ways: alone, on an image, and as the model sees it (normalised, stretched to full range).

    Args:
        prompt: a pixel prompt with `.picture()`.
        image: (3, h, h) float in [0, 1].
        model: its `mean` and `std` make the third picture, left out without it.
    """
    with torch.no_grad():
        prompted = prompt(image[None])[0]
        picture = prompt.picture()
    low, high = float(picture.min()), float(picture.max())
    alone = picture if low >= 0 and high <= 1 else 0.5 + picture / (2 * max(abs(low), abs(high), 1e-9))
    pictures, titles = [alone, prompted], ["the prompt alone", "on an image"]
    if model is not None:
        seen = (prompted - model.mean[:, None, None]) / model.std[:, None, None]
        pictures.append((seen - seen.min()) / (seen.max() - seen.min()).clamp(min=1e-9))
        titles.append("as the model sees it")
    figure, axes = plt.subplots(1, len(pictures), figsize=(side * len(pictures), side + 0.3), layout="constrained")
    for axis, shown, title in zip(axes, pictures, titles, strict=True):
        axis.imshow(_displayable(shown))
        axis.set_title(title, fontsize=8)
        axis.axis("off")
    return _finished(figure)


def plot_history(histories: dict, value: str = "val_accuracy", label: str = "validation accuracy", chance=None):
    """One curve per method: `value` over the epochs. `histories` maps method names to `History`."""
    figure, axis = plt.subplots(layout="constrained")
    for method, history in histories.items():
        color = METHOD_COLORS.get(method)
        axis.plot(history["epoch"], history[value], marker="o", markersize=3, label=method, color=color)
    if chance is not None:
        axis.axhline(chance, **_CHANCE)
        axis.annotate("chance", (1, chance), fontsize=7, color="#666666", va="bottom")
    axis.set(xlabel="epoch", ylabel=label)
    axis.xaxis.get_major_locator().set_params(integer=True)
    if "accuracy" in value:
        axis.yaxis.set_major_formatter("{x:.0%}")
    axis.legend(fontsize=7)
    return _finished(figure)


def plot_accuracies(table, column: str = "test_accuracy", by: str | None = None, chance: float | None = None):
    """A bar per method with its mean; where there are several runs, each as a dot.

    Args:
        table: pandas table with the columns `method` and `column`, one row a run.
        by: a column whose values get a panel each, such as "dataset".
        chance: drawn as a dotted line.
    """
    order = list(dict.fromkeys(table["method"]))
    palette = {method: METHOD_COLORS.get(method, "#777777") for method in order}
    groups = [("", table)] if by is None else list(table.groupby(by, sort=False))
    size = (1.3 + 2.6 * len(groups), 0.3 * len(order) + 0.8)
    figure, axes = plt.subplots(1, len(groups), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, (title, rows) in zip(axes[0], groups, strict=True):
        options = {
            "data": rows,
            "y": "method",
            "x": column,
            "order": order,
            "hue": "method",
            "legend": False,
            "ax": axis,
        }
        sns.barplot(**options, palette=palette, errorbar=None, alpha=0.75)
        if rows["method"].duplicated().any():
            sns.stripplot(**options, palette=dict.fromkeys(order, "#222222"), size=3, jitter=False)
        for position, method in enumerate(order):
            found = rows.loc[rows["method"] == method, column]
            if len(found):
                axis.annotate(f" {found.mean():.1%}", (found.max(), position), va="center", fontsize=7)
        if chance is not None:
            axis.axvline(chance, **_CHANCE)
        axis.set(xlabel=column.replace("_", " "), ylabel="", title=title, xlim=(0, table[column].max() * 1.25))
        axis.xaxis.set_major_formatter("{x:.0%}")
    return _finished(figure)


def plot_sizes(table, column: str = "test_accuracy"):
    """Accuracy against the number of prompt parameters, one curve a template: mean and range over seeds.

    Args:
        table: pandas table with the columns `method`, `learned_parameters` and `column`.
    """
    figure, axis = plt.subplots(figsize=(4.6, 2.8), layout="constrained")
    for method, rows in table.groupby("method", sort=False):
        over_seeds = rows.groupby("learned_parameters")[column].agg(["mean", "min", "max"])
        color = METHOD_COLORS.get(method)
        axis.plot(over_seeds.index, over_seeds["mean"], marker="o", markersize=3, label=method, color=color)
        axis.fill_between(over_seeds.index, over_seeds["min"], over_seeds["max"], alpha=0.2, color=color, linewidth=0)
    axis.set(xlabel="prompt parameters", ylabel=column.replace("_", " "), xscale="log")
    axis.yaxis.set_major_formatter("{x:.0%}")
    axis.legend(fontsize=7)
    return _finished(figure)


def plot_mapping(counts: Tensor, source_names, target_names, index: Tensor, most: int = 12):
    """Heat map of `count_predictions` for the first `most` target classes; the mapped cell of each is framed.

    Args:
        counts: (S, T).
        index: (T,) source class of each target class; only these source classes become rows.
    """
    counts, index = counts[:, :most].cpu(), index[:most].cpu()
    voted = torch.cat([index, counts.sum(1).topk(min(4, len(counts))).indices])  # what was asked for besides
    rows = list(dict.fromkeys(voted.tolist()))
    share = (counts / counts.sum(0).clamp(min=1))[rows]
    figure, axis = plt.subplots(figsize=(0.36 * len(index) + 2.2, 0.24 * len(rows) + 1.3), layout="constrained")
    sns.heatmap(
        share.numpy(), cmap="cividis", vmin=0, ax=axis, cbar_kws={"label": "share of the class", "format": "{x:.0%}"},
        xticklabels=[target_names[t] for t in range(len(index))], yticklabels=[source_names[s] for s in rows],
    )  # fmt: skip
    for target, source in enumerate(index.tolist()):
        corner = (target, rows.index(source))
        axis.add_patch(plt.Rectangle(corner, 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.5))
    axis.set(xlabel="target class", ylabel="source class")
    axis.tick_params(axis="x", rotation=60)
    plt.setp(axis.get_xticklabels(), ha="right", rotation_mode="anchor")
    return _finished(figure)


def _displayable(image: Tensor):
    image = image.detach().cpu()
    image = image / 255 if image.dtype == torch.uint8 else image.clamp(0, 1)
    return image.permute(1, 2, 0).numpy()


def _finished(figure):
    plt.close(figure)  # returned figures are shown once, by the cell that asks for them
    return figure
