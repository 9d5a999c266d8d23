"""LoGoPrompt's selection: the true class must win with and without its name on the image, and no other may."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Reselected", "hard_negatives", "harmonic_mean", "min_max_loss", "reselect"]


def hard_negatives(logits: Tensor, labels: Tensor, count: int = 5) -> Tensor:
    """The most probable wrong classes of each image: (B, T) logits and (B,) labels to (B, min(count, T - 1)).

    No gradient passes through the ranking. `count` is cut to the wrong classes there are (EuroSAT's halves have 4).

    Raises:
        ValueError: a count below 1, fewer than two classes.
    """
    if count < 1:
        raise ValueError(f"count={count}: the loss needs at least 1 negative class")
    if logits.shape[1] < 2:
        raise ValueError(f"{logits.shape[1]} class: there is no wrong one to tell it from")
    wrong = logits.detach().scatter(1, labels[:, None], float("-inf"))
    return wrong.topk(min(count, logits.shape[1] - 1), dim=1).indices


def min_max_loss(plain: Tensor, with_name: Tensor, named: Tensor, include_positive: bool = True) -> Tensor:
    """The min-max contrastive loss, mean over the batch, from *log* probabilities.

    Args:
        plain: (B, T) log p(c | x).
        with_name: (B, 1 + K) log p(c | x_c), each class with its own name on the image.
        named: (B, 1 + K) the classes c: first the true one, then K wrong ones.
        include_positive: InfoNCE with the positive in the denominator, log(1 + e^L). False is Eq. 3 as printed, which
            is not bounded below.

    Source: Shi & Yang 2023, Eq. 3. Explained in chapter 5.
    """
    without = plain.gather(1, named)
    positive = torch.minimum(without[:, 0], with_name[:, 0])
    negative = torch.maximum(without[:, 1:], with_name[:, 1:]).logsumexp(1)
    printed = negative - positive
    return (torch.nn.functional.softplus(printed) if include_positive else printed).mean()


class Reselected(NamedTuple):
    """What `reselect` decided: predictions (B,), candidates (B, K), their scores (B, K), and where the pasted names
    changed the plain prediction (B,) bool."""

    prediction: Tensor
    candidates: Tensor
    scores: Tensor
    changed: Tensor


def reselect(plain: Tensor, pasted, count: int = 5) -> Reselected:
    """Inference: the best of the top candidates by max(p(c | x), p(c | x_c)).

    Args:
        plain: (B, T) log p(c | x).
        pasted: function from candidates (B, K) to log p(c_k | x_{c_k}) (B, K).
        count: number K of candidates, cut to T.

    Raises:
        ValueError: a count below 1.

    Source: Shi & Yang 2023, Sec. 3.2.2. Explained in chapter 5.
    """
    if count < 1:
        raise ValueError(f"count={count}: selection needs at least 1 candidate")
    top = plain.topk(min(count, plain.shape[1]), dim=1)
    scores = torch.maximum(top.values, pasted(top.indices))
    prediction = top.indices.gather(1, scores.argmax(1, keepdim=True))[:, 0]
    return Reselected(prediction, top.indices, scores, prediction != top.indices[:, 0])


def harmonic_mean(base: float, new: float) -> float:
    """H = 2 b n / (b + n) of two accuracies, 0 if both are 0 (base-to-new generalisation)."""
    return 2 * base * new / (base + new) if base + new else 0.0
