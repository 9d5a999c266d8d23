"""Label mappings: counts, dynamics, gains by class."""

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import Tensor

from vpkit.datasets.image_set import ImageSet
from vpkit.mappings.one_to_one import hamming_distance
from vpkit.plots.images import show_images
from vpkit.plots.style import METHOD_COLORS, displayable, finished


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
    return finished(figure)


def plot_dynamics(seen: list, history, targets: dict[str, int], source_names):
    """ILM's dynamics (Chen et al., Fig. 5): per epoch the prompt and mapped source classes, above three curves.

    The third curve is the Hamming distance to the mapping of the epoch before.

    Args:
        seen: (`LabelMapping`, prompt (3, H, W)) after each epoch.
        history: with train_loss and val_accuracy; its last rows are those of `seen`.
        targets: the classes that are followed, by name.
        source_names: of the S source classes.
    """
    mappings, pictures = zip(*seen, strict=True)
    labels = {name: [source_names[mapping.index[t]] for mapping in mappings] for name, t in targets.items()}
    moved = [0, *map(hamming_distance, mappings, mappings[1:])]
    epochs = len(pictures)
    figure = plt.figure(figsize=(max(6.0, 1.25 * epochs), 4.6), layout="constrained")
    (top,), (bottom,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.25, 1))
    for epoch, (axis, picture) in enumerate(zip(top.subplots(1, epochs, squeeze=False)[0], pictures, strict=True)):
        axis.imshow(displayable(picture))
        axis.set_title(f"epoch {epoch + 1}", fontsize=7)
        axis.set(xticks=[], yticks=[])
        axis.set_xlabel("\n".join(sources[epoch][:20] for sources in labels.values()), fontsize=6)
    top.suptitle(f"below each prompt, the source classes of {', '.join(labels)}", fontsize=8)
    loss, accuracy = history["train_loss"][-epochs:], history["val_accuracy"][-epochs:]
    curves = {"training loss": loss, "validation accuracy": accuracy, "classes re-mapped": moved}
    for axis, (title, values) in zip(bottom.subplots(1, 3), curves.items(), strict=True):
        axis.plot(range(1, epochs + 1), values, marker="o", markersize=3, color=METHOD_COLORS["ILM"])
        axis.margins(y=0.1)
        axis.set(xlabel="epoch", title=title, ylim=(0, None))
        axis.xaxis.get_major_locator().set_params(integer=True)
    return finished(figure)


def plot_gains(gain: Tensor, starred: Tensor, class_names, most: int = 10):
    """The largest per-class gains as bars (Chen et al., Fig. 4); re-mapped classes carry a star.

    Args:
        gain: (T,) difference of accuracies; NaN for classes without images.
        starred: (T,) bool.
    """
    order = gain.nan_to_num(-1).argsort(descending=True, stable=True)[:most].tolist()
    figure, axis = plt.subplots(figsize=(4.6, 0.26 * len(order) + 0.8), layout="constrained")
    names = [f"{class_names[t]}{' *' if starred[t] else ''}" for t in order]
    axis.barh(names, [float(gain[t]) for t in order], color=METHOD_COLORS["ILM"], alpha=0.75)
    axis.invert_yaxis()
    axis.set(xlabel="gain in accuracy")
    axis.xaxis.set_major_formatter("{x:.0%}")
    return finished(figure)


def show_explanations(images: ImageSet, read: Tensor, accuracy: Tensor, sources: list[str], count: int = 8):
    """Of the best target classes the image most surely read as the mapped source class (Chen et al., Fig. 6).

    Below the class's name stand that source class, and its mean probability over the images of the class.

    Args:
        images: N of them.
        read: (N, T) probability of each target class's source class, from `vpkit.analysis.source_probabilities`.
        accuracy: (T,) by class, NaN for a class without images.
        sources: the T names of the source classes.
        count: classes shown.
    """
    best = accuracy.nan_to_num(-1).argsort(descending=True, stable=True)[:count].tolist()
    chosen = [int(torch.where(images.labels == t, read[:, t], -1).argmax()) for t in best]
    shares = [float(read[images.labels == t, t].mean()) for t in best]
    titles = [f"{images.class_names[t]}\n{sources[t][:18]}\n{share:.1%}" for t, share in zip(best, shares, strict=True)]
    return show_images(images.images[chosen], titles, side=1.15)
