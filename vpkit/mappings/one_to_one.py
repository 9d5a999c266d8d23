"""Label mapping: which source class stands for which target class (Chen et al. 2023, Sec. 4).

A mapping is a module from source logits (B, S) to target logits (B, T). Explained in chapter 2.
"""

from collections.abc import Sequence

import numpy as np
import scipy  # its parts load when they are used
import torch
from torch import Tensor, nn

from vpkit.interfaces import LabelledBatches


class LabelMapping(nn.Module):
    """One source class per target class: target logit t is source logit `index[t]`.

    Args:
        index: (T,) distinct source classes.

    Raises:
        ValueError: an index that is not one-dimensional, repeats a source class or is negative.
    """

    index: Tensor

    def __init__(self, index: Tensor | Sequence[int]):
        super().__init__()
        index = torch.as_tensor(index, dtype=torch.int64).detach().clone()
        if index.ndim != 1 or len(index) == 0 or index.min() < 0 or len(index.unique()) < len(index):
            raise ValueError(f"index={index.tolist()}: expected distinct source classes, one for each target class")
        self.register_buffer("index", index)

    def forward(self, source_logits: Tensor) -> Tensor:
        return source_logits[:, self.index]

    def extra_repr(self) -> str:
        return f"{len(self.index)} target classes"


def identity_mapping(num_target: int) -> LabelMapping:
    """VP's hard-coded mapping: target class t is read from source class t (Bahng et al., Sec. 3.3)."""
    return LabelMapping(torch.arange(num_target))


def random_mapping(num_source: int, num_target: int, seed: int = 0) -> LabelMapping:
    """RLM: distinct source classes drawn by `seed`, blind to the data.

    Raises:
        ValueError: more target than source classes.
    """
    check_room(num_source, num_target)
    generator = torch.Generator().manual_seed(seed)
    return LabelMapping(torch.randperm(num_source, generator=generator)[:num_target])


def frequency_mapping(counts: Tensor, probability: Tensor | None = None) -> LabelMapping:
    """FLM's greedy one-to-one assignment: again and again the largest count left (Chen et al., Eq. 3).

    Ties go to the lowest source class, then the lowest target class; a target class whose votes are all taken
    gets the lowest free source class (both as in the released code). With `probability`, ties are ranked by it
    instead, those between sources that no image voted for included ("soft ties", ours).

    Args:
        counts: (S, T), how many images of target class t were called source class s.
        probability: (S, T) mean predicted probabilities in [0, 1].

    Raises:
        ValueError: more target than source classes, or shapes that differ.
    """
    if probability is None and not (torch.as_tensor(counts) < 0).any():
        return LabelMapping(_most_voted(counts).to(torch.as_tensor(counts).device))
    score = scores(counts, probability).T.copy()  # (T, S): one target class per row, contiguous for argmax
    num_target, num_source = score.shape
    index = np.zeros(num_target, dtype=np.int64)
    best_source = score.argmax(1)  # argmax takes the first maximum: the lowest source class
    best_score = score[np.arange(num_target), best_source]
    for _ in range(num_target):
        # Largest score; among equals the lowest source class, then the lowest target class.
        tied = np.flatnonzero(best_score == best_score.max())
        target = tied[best_source[tied].argmin()]
        source = index[target] = best_source[target]
        score[:, source] = -np.inf
        best_score[target], best_source[target] = -np.inf, num_source
        stale = np.flatnonzero(best_source == source)  # only these wanted the source that is gone
        best_source[stale] = score[stale].argmax(1)
        best_score[stale] = score[stale, best_source[stale]]
    return LabelMapping(torch.from_numpy(index).to(torch.as_tensor(counts).device))


def _most_voted(counts: Tensor) -> Tensor:
    """`frequency_mapping` of counts alone: (T,) source classes. Only cells with votes are looked at, each once."""
    counts = _table(counts)
    cells = counts.nonzero()  # by source class, then target class: a stable sort leaves ties in that order
    order = counts[cells[:, 0], cells[:, 1]].argsort(descending=True, stable=True)
    index, free, left = [-1] * counts.shape[1], [True] * len(counts), counts.shape[1]
    for source, target in cells[order].tolist():
        if index[target] < 0 and free[source]:
            index[target], free[source] = source, False
            left -= 1
            if not left:
                break
    unused = (source for source, is_free in enumerate(free) if is_free)
    return torch.tensor([next(unused) if source < 0 else source for source in index])  # no votes left: in order


def optimal_mapping(counts: Tensor, probability: Tensor | None = None) -> LabelMapping:
    """The one-to-one assignment with the largest total count (Hungarian method); arguments as `frequency_mapping`. With
    `probability`, of counts and half the probabilities, which over many classes may also outweigh a vote."""
    sources, targets = scipy.optimize.linear_sum_assignment(scores(counts, probability), maximize=True)
    return LabelMapping(torch.from_numpy(sources[targets.argsort()]).to(torch.as_tensor(counts).device))


class PredictionCounts:
    """How often images of target class t are called source class s, gathered batch by batch on the device.

    Only the (S, T) tables are kept, whatever the number of images. In a
    `vpkit.methods.CountingClassifier` it gathers from the training pass, which saves the forward pass of
    `count_predictions` but mixes the prompts of one epoch (BLM's released code has such a variant).

    Args:
        num_target: number of target classes T; a class without images keeps its column.
        with_probability: gather softmax probabilities too.
    """

    def __init__(self, num_target: int, with_probability: bool = False):
        self.num_target, self.with_probability = num_target, with_probability
        self._counts: Tensor | None = None
        self._mass: Tensor | None = None

    @torch.no_grad()
    def add(self, source_logits: Tensor, labels: Tensor) -> None:
        """Count a batch of source logits (B, S) with target labels (B,)."""
        num_source = source_logits.shape[1]
        if self._counts is None:
            self._counts = labels.new_zeros(num_source, self.num_target)
        # In place: with CLIP's 81 templates of SUN397 the table has 12.8 million cells, and a batch touches 64.
        cells = source_logits.argmax(1) * self.num_target + labels
        self._counts.view(-1).index_add_(0, cells, torch.ones_like(labels))
        if self.with_probability:
            if self._mass is None:
                self._mass = torch.zeros(self.num_target, num_source, device=source_logits.device)
            self._mass.index_add_(0, labels, source_logits.float().softmax(1))

    @property
    def counts(self) -> Tensor:
        """(S, T) int64.

        Raises:
            ValueError: nothing has been counted yet.
        """
        if self._counts is None:
            raise ValueError("there are no images to count: the batches are empty; expected at least one")
        return self._counts

    @property
    def probability(self) -> Tensor:
        """(S, T) mean probabilities; 0 for a class without images."""
        assert self._mass is not None, "give with_probability=True, and add() a batch"
        return self._mass.T / self.counts.sum(0).clamp(min=1)


@torch.no_grad()
def count_predictions(model: nn.Module, prompt: nn.Module, batches: LabelledBatches, with_probability: bool = False):
    """How often images of target class t, prompted, are called source class s: (S, T) int64 counts.

    Args:
        model: source model, (B, 3, H, W) to (B, S) logits.
        prompt: applied to the images first.
        batches: iterable of `(images, labels)` with `class_names`, such as `ImageSet.batches(...)`.
        with_probability: also return the (S, T) mean softmax probabilities, `(counts, probability)`.

    Raises:
        ValueError: no images.

    Source: Chen et al. 2023, Eq. 3. Explained in chapter 2.
    """
    gathered = PredictionCounts(len(batches.class_names), with_probability)
    for images, labels in batches:
        gathered.add(model(prompt(images)), labels)
    return (gathered.counts, gathered.probability) if with_probability else gathered.counts


def hamming_distance(before: LabelMapping, after: LabelMapping) -> int:
    """How many target classes changed their source class (Chen et al., Fig. 5)."""
    return int((before.index != after.index).sum())


def scores(counts: Tensor, probability: Tensor | None) -> np.ndarray:
    """Counts plus half the probabilities: less than a vote in a cell, so in the greedy mapping they only rank ties."""
    score = _table(counts).cpu().double()
    if probability is not None:
        if probability.shape != score.shape:
            raise ValueError(
                f"probability is {tuple(probability.shape)}, counts are {tuple(score.shape)}: expected equal shapes"
            )
        score = score + 0.5 * probability.cpu().double()
    return score.numpy()


def _table(counts) -> Tensor:
    """Counts as a tensor (S, T), if they are such a table with room for every target class."""
    counts = torch.as_tensor(counts)
    if counts.ndim != 2:
        raise ValueError(f"counts are {tuple(counts.shape)}: expected (source classes, target classes)")
    check_room(*counts.shape)
    return counts


def check_room(num_source: int, num_target: int) -> None:
    if not 1 <= num_target <= num_source:
        raise ValueError(
            f"{num_target} target classes cannot each have one of {num_source} source classes: "
            f"use a source model with more classes, or fewer target classes"
        )
