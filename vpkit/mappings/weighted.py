"""Mappings that read a target class from many source classes: BLM, BLM+ (Cai et al. 2024), averages, learned weights.

The step beyond one-to-one label mapping: z_target = z_source @ matrix.
"""

import numpy as np
import torch
from torch import Tensor, nn

from vpkit.devices import widest_float
from vpkit.interfaces import LabelledBatches
from vpkit.mappings.one_to_one import LabelMapping, check_room, scores

__all__ = ["LinearMapping", "WeightedMapping", "bayesian_mapping", "grouped_mapping", "probability_mass"]


class WeightedMapping(nn.Module):
    """Target logits are the source logits times a fixed matrix (S, T).

    Raises:
        ValueError: a matrix that is not two-dimensional or not finite.
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor):
        super().__init__()
        matrix = torch.as_tensor(matrix, dtype=torch.float32).detach().clone()
        if matrix.ndim != 2 or not matrix.isfinite().all():
            raise ValueError(f"matrix is {tuple(matrix.shape)}: expected finite numbers, (source, target classes)")
        self.register_buffer("matrix", matrix)

    def forward(self, source_logits: Tensor) -> Tensor:
        return source_logits @ self.matrix.to(source_logits.dtype)


class LinearMapping(nn.Module):
    """The same with a learned matrix, started from a one-to-one mapping: an upper reference, S x T parameters."""

    def __init__(self, num_source: int, start: LabelMapping):
        super().__init__()
        matrix = torch.zeros(num_source, len(start.index))
        matrix[start.index.cpu(), torch.arange(len(start.index))] = 1
        self.matrix = nn.Parameter(matrix)

    def forward(self, source_logits: Tensor) -> Tensor:
        return source_logits @ self.matrix


def bayesian_mapping(counts: Tensor, laplace: float = 1.0) -> WeightedMapping:
    """BLM: how likely target t is when the model says s, each column scaled to sum 1 (Cai et al., Eq. 5 and 6).

    With `probability_mass` in place of counts it is BLM+. A source class without votes weighs nothing; a target
    class without images is read from the mean of all source logits.

    Args:
        counts: (S, T), non-negative.
        laplace: added to the votes of each source class.

    Raises:
        ValueError: negative counts or smoothing, or a shape that is not (S, T).
    """
    counts = torch.as_tensor(counts)
    device, counts = counts.device, counts.cpu().double()  # Apple's GPUs have no float64
    if counts.ndim != 2 or (counts < 0).any() or laplace < 0:
        raise ValueError(f"counts {tuple(counts.shape)} and laplace={laplace}: expected (S, T) and nothing negative")
    votes = counts.sum(1, keepdim=True) + laplace
    likely = torch.where(votes > 0, counts / votes.clamp(min=1e-12), 0.0)
    total = likely.sum(0)
    return WeightedMapping(torch.where(total > 0, likely / total.clamp(min=1e-300), 1 / len(counts))).to(device)


@torch.no_grad()
def probability_mass(model: nn.Module, prompt: nn.Module, batches: LabelledBatches, top_k: int | None = None) -> Tensor:
    """BLM+'s soft counts: (S, T) sums of each image's `top_k` largest source probabilities, in its label's column.

    Args:
        top_k: how many probabilities an image gives; by default 15 % of the number of target classes, at least 1.

    Raises:
        ValueError: top_k below 1, or no images.
    """
    num_target = len(batches.class_names)
    top_k = max(1, int(0.15 * num_target)) if top_k is None else top_k
    if top_k < 1:
        raise ValueError(f"top_k={top_k}: expected at least 1")
    mass = None
    for images, labels in batches:
        probability = model(prompt(images)).float().softmax(1)
        values, source = probability.topk(min(top_k, probability.shape[1]))  # (B, k)
        if mass is None:
            wide = widest_float(probability.device)
            mass = torch.zeros(probability.shape[1], num_target, dtype=wide, device=probability.device)
        mass.index_put_((source, labels[:, None].expand_as(source)), values.to(mass.dtype), accumulate=True)
    if mass is None:
        raise ValueError("there are no images to count: the batches are empty; expected at least one")
    return mass


def grouped_mapping(counts: Tensor, probability: Tensor | None = None, *, sources_per_target: int) -> WeightedMapping:
    """Greedy frequency mapping with several source classes for each target class, whose logits are averaged.

    The largest count left goes first, ties to the lowest source class or to the larger `probability`, as in
    `frequency_mapping`; a source class serves one target class.

    Raises:
        ValueError: fewer source classes than T x sources_per_target, or sources_per_target below 1.
    """
    counts = torch.as_tensor(counts)
    num_source, num_target = counts.shape
    if sources_per_target < 1:
        raise ValueError(f"sources_per_target={sources_per_target}: expected at least 1")
    check_room(num_source, num_target * sources_per_target)
    left = scores(counts, probability).copy()
    matrix = np.zeros(left.shape)
    for _ in range(num_target * sources_per_target):
        source, target = divmod(int(left.argmax()), num_target)
        matrix[source, target] = 1 / sources_per_target
        left[source] = -np.inf
        if np.count_nonzero(matrix[:, target]) == sources_per_target:
            left[:, target] = -np.inf
    return WeightedMapping(torch.from_numpy(matrix)).to(counts.device)
