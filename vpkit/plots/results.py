"""Curves and bars of accuracies."""

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.ticker import MaxNLocator
from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

from vpkit.plots.style import CHANCE, METHOD_COLORS, colors_of, finished


def show_table(table, digits: int = 1):
    """A pandas table to read: shares in [0, 1] as per cent, integers with thousands apart, nothing where there is none.

    Args:
        table: its index is shown only if it has a name.
        digits: of the percentages, behind the point.
    """
    table, formats = table.infer_objects(), {}
    for name, column in table.items():
        if is_numeric_dtype(column) and not is_bool_dtype(column):
            share = not is_integer_dtype(column) and column.dropna().between(0, 1).all()
            formats[name] = f"{{:.{digits}%}}" if share else "{:,.0f}" if (column.dropna() % 1 == 0).all() else "{:.1f}"
    shown = table.style.format(formats, na_rep="")
    return shown if table.index.name else shown.hide()


def plot_history(histories: dict, value: str = "val_accuracy", label: str = "validation accuracy", chance=None):
    """One curve per method: `value` over the epochs. `histories` maps method names to `History`."""
    figure, axis = plt.subplots(layout="constrained")
    for method, history in histories.items():
        color = METHOD_COLORS.get(method)
        known = [(row["epoch"], row[value]) for row in history.rows if row[value] is not None]
        axis.plot(*zip(*known, strict=True), marker="o", markersize=3, label=method, color=color)
    if chance is not None:
        axis.axhline(chance, **CHANCE)
        axis.annotate("chance", (axis.get_xlim()[1], chance), fontsize=7, color="#666666", va="bottom", ha="right")
    axis.set(xlabel="epoch", ylabel=label)
    locator = axis.xaxis.get_major_locator()
    if isinstance(locator, MaxNLocator):  # as it is for numbers
        locator.set_params(integer=True)
    if "accuracy" in value:
        axis.yaxis.set_major_formatter("{x:.0%}")
    axis.legend(fontsize=7)
    return finished(figure)


def plot_accuracies(table, column: str = "test_accuracy", by: str | None = None, chance: float | None = None):
    """A bar per method with its mean; where there are several runs, each as a dot.

    Args:
        table: pandas table with the columns `method` and `column`, one row a run.
        by: a column whose values get a panel each, such as "dataset".
        chance: drawn as a dotted line.
    """
    present = list(dict.fromkeys(table["method"]))
    order = sorted(present, key=lambda m: list(METHOD_COLORS).index(m) if m in METHOD_COLORS else len(METHOD_COLORS))
    palette = colors_of(order)
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
            axis.axvline(chance, **CHANCE)
        axis.set(xlabel=column.replace("_", " "), ylabel="", title=title, xlim=(0, table[column].max() * 1.25))
        axis.set_xticks([tick for tick in axis.get_xticks() if tick <= 1])
        axis.xaxis.set_major_formatter("{x:.0%}")
    return finished(figure)


def plot_queries(table, ceilings=(), column: str = "test_accuracy"):
    """Accuracy against the number of images sent, on a log axis: a point a run, a line a method, dashed ceilings.

    Args:
        table: pandas table with `method`, `budget`, `sent` and `column`, one row a run; a line joins the means of
            the budgets.
        ceilings: methods that send nothing, each drawn as the mean of its runs.
    """
    figure, axis = plt.subplots(figsize=(5.4, 3.4), layout="constrained")
    asking = table[~table["method"].isin(ceilings)]
    for method, rows in asking.groupby("method", sort=False):
        color = METHOD_COLORS.get(method)
        middle = rows.groupby("budget")[["sent", column]].mean().sort_values("sent")
        axis.plot(middle["sent"], middle[column], color=color, label=method, linewidth=1.2)
        axis.scatter(rows["sent"], rows[column], color=color, s=10)
    for method, dashes in zip(ceilings, ("--", ":", "-."), strict=False):
        mean = table[table["method"] == method][column].mean()
        axis.axhline(mean, color="#444444", linestyle=dashes, linewidth=1, label=method)
    axis.set(xscale="log", xlabel="images sent", ylabel=column.replace("_", " "), ylim=(0, 1))
    axis.yaxis.set_major_formatter("{x:.0%}")
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return finished(figure)


def plot_sizes(table, column: str = "test_accuracy"):
    """Accuracy against the number of prompt parameters, one curve a template: mean and range over seeds.

    Args:
        table: pandas table with the columns `method`, `parameters` and `column`.
    """
    figure, axis = plt.subplots(figsize=(4.6, 2.8), layout="constrained")
    for method, rows in table.groupby("method", sort=False):
        over_seeds = rows.groupby("parameters")[column].agg(["mean", "min", "max"])
        color = METHOD_COLORS.get(method)
        axis.plot(over_seeds.index, over_seeds["mean"], marker="o", markersize=3, label=method, color=color)
        axis.fill_between(over_seeds.index, over_seeds["min"], over_seeds["max"], alpha=0.2, color=color, linewidth=0)
    axis.set(xlabel="prompt parameters", ylabel=column.replace("_", " "), xlim=(0, None), ylim=(0, None))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.yaxis.set_major_formatter("{x:.0%}")
    axis.legend(fontsize=7)
    return finished(figure)


def plot_spread(accuracies, label: str):
    """A histogram of accuracies in [0, 1], the first of them marked: that of the default text prompt."""
    figure, axis = plt.subplots(figsize=(4.6, 2.0), layout="constrained")
    sns.histplot(list(accuracies), bins=20, color="#56B4E9", ax=axis)
    axis.axvline(accuracies[0], color="#D55E00", linewidth=1.5, label="default")
    axis.set(xlabel=label, ylabel="templates")
    axis.xaxis.set_major_formatter("{x:.1%}")
    axis.legend(fontsize=7)
    return finished(figure)


def plot_confusion(confusion, class_names):
    """(T, T) counts, row: true class, column: predicted class; numbers in the cells of up to 12 classes."""
    many = len(class_names)
    side = min(9.0, 2.0 + 0.35 * many)
    figure, axis = plt.subplots(figsize=(side, side), layout="constrained")
    labels = list(class_names) if many <= 40 else False
    sns.heatmap(
        confusion.numpy(), cmap="rocket_r", cbar=False, square=True, ax=axis,
        xticklabels=labels, yticklabels=labels, annot=many <= 12, fmt="d",
    )  # fmt: skip
    axis.set(xlabel="predicted", ylabel="true class")
    return finished(figure)
