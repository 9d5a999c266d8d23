"""How far two sets of images lie apart, and how varied one is, in a model's own features.

Stand-ins for FID and LPIPS, which VP (Bahng et al. 2022, Fig. 5) takes from networks of their own.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["distance_and_diversity", "frechet_distance", "mean_pairwise_distance"]


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Frechet distance of two Gaussians fitted to features (N, D) and (M, D); 0 for equal moments, never negative.

    Raises:
        ValueError: fewer than two images in a set, or features of different length.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise ValueError(
            f"features are {tuple(first.shape)} and {tuple(second.shape)}: expected (N, D) and (M, D), N and M above 1"
        )
    first, second = first.cpu().double(), second.cpu().double()
    covariances = first.T.cov(), second.T.cov()
    # The trace of a square root is the sum of the roots of the eigenvalues, which are real and not negative.
    roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    apart = (first.mean(0) - second.mean(0)).square().sum()
    return float((apart + covariances[0].trace() + covariances[1].trace() - 2 * roots).clamp(min=0))


def mean_pairwise_distance(features: Tensor) -> float:
    """Mean cosine distance of two different images of a set: features (N, D) to a number in [0, 2].

    Raises:
        ValueError: fewer than two images.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features are {tuple(features.shape)}: expected (N, D), N above 1")
    unit, count = normalize(features.cpu().double(), dim=1), len(features)
    cosine = (unit.sum(0).square().sum() - count) / (count * (count - 1))  # over all pairs, without building them
    return float(1 - cosine)


def distance_and_diversity(features: Tensor, reference: Tensor | None = None) -> dict[str, float]:
    """VP's two properties of a data set: {"distance"} to what the model was trained on, and {"diversity"} within.

    Args:
        features: (N, D) of the data set.
        reference: (M, D) of training pictures, such as `clip.reference_features`; None, where not known, leaves
            the distance out.

    Raises:
        ValueError: as `frechet_distance` and `mean_pairwise_distance`.

    Source: Bahng et al. 2022, Fig. 5. Explained in chapter 4.
    """
    known = {} if reference is None else {"distance": frechet_distance(features, reference)}
    return known | {"diversity": mean_pairwise_distance(features)}
