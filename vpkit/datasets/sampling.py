"""Seeded, stratified choices of images: which go to a split, which to a subset."""

import numpy as np


def stratified_choice(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions of `count` images, each class in proportion to its size (largest remainder), in ascending order.

    Args:
        labels: (N,) integer labels.
        count: how many images to choose. With `count` at least the number of classes, no class is left out.

    Raises:
        ValueError: `count` below 1 or above N.
    """
    labels = np.asarray(labels)
    if not 1 <= count <= len(labels):
        raise ValueError(f"cannot choose {count} of {len(labels)} images: expected 1..{len(labels)}")
    classes, sizes = np.unique(labels, return_counts=True)
    ideal = count * sizes / len(labels)
    quota = np.floor(ideal).astype(int)
    if count >= len(classes):
        quota = np.maximum(quota, 1)
    # Largest remainders first; lower class number on ties. Taking back is needed where the floor of 1 overshot.
    while quota.sum() != count:
        step = 1 if quota.sum() < count else -1
        room = (quota < sizes) if step > 0 else (quota > (1 if count >= len(classes) else 0))
        quota[np.argmax(np.where(room, step * (ideal - quota), -np.inf))] += step
    generator = np.random.default_rng(seed)
    chosen = [generator.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate(chosen))


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`(rest, held_out)` positions, `fraction` of every class held out. The two are disjoint and cover all."""
    count = round(fraction * len(labels))
    held_out = stratified_choice(labels, count, seed)
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out
