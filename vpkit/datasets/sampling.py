"""Seeded, stratified choices of images: which go to a split, which to a subset."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np

from vpkit.datasets.source import Source


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


def split_pool(source: Source, split: str, seed: int, test_share: float = 0.2, val_share: float = 0.1) -> Source:
    """One split of images that come without any: a test share that no seed moves, then a share of the rest for val."""
    rest, test = stratified_split(source.labels, test_share, seed=0)
    if split == "test":
        return source.part(test)
    train, val = stratified_split(source.labels[rest], val_share, seed=seed)
    return source.part(rest[train] if split == "train" else rest[val])


def split_off_validation(source: Source, split: str, seed: int) -> Source:
    """`train` or `val` of an official training split that has no validation part: 10 %, stratified, seeded."""
    train, val = stratified_split(source.labels, 0.1, seed=seed)
    return source.part(val) if split == "val" else replace(source.part(train), validated_by=source)


def split_by_content(
    source: Source, digests: Sequence[str], split: str, seed: int, test_share: float = 0.2, val_share: float = 0.1
) -> Source:
    """One split of images that come without any, by what is in each: a file stays where it is when others come or go.

    Nearly `test_share` of every class, whatever the seed, then nearly `val_share` of the rest by `seed`; at least one
    image of every class in each, even if that takes the one closest to the border.

    Args:
        digests: N, see `content_digest`. Copies of one file are in one split.
        split: "train", "val" or "test".
        test_share: 0 leaves the test part out, for training images that have test images elsewhere.

    Raises:
        ValueError: a class with fewer images than there are splits.
    """
    least, purposes = (3, "train, to validate and to test") if test_share else (2, "train and to validate")
    sizes = np.bincount(source.labels, minlength=len(source.class_names))
    few = [f"{name} ({n})" for name, n in zip(source.class_names, sizes.tolist(), strict=True) if n < least]
    if few:
        raise ValueError(
            f"too few images of {', '.join(few)}: a class needs at least {least}, one each to {purposes}; "
            "add some, or sort them into train/, val/ and test/ folders yourself"
        )
    kept: list[int] = []
    for label in range(len(source.class_names)):
        members = np.flatnonzero(source.labels == label).tolist()
        test = _closest(members, digests, "test", test_share, most=len(members) - 2) if test_share else []
        rest = sorted(set(members) - set(test))
        val = _closest(rest, digests, f"val {seed}", val_share, most=len(rest) - 1)
        kept += {"test": test, "val": val, "train": sorted(set(rest) - set(val))}[split]
    return source.part(sorted(kept))


def _closest(members: list[int], digests: Sequence[str], purpose: str, share: float, most: int) -> list[int]:
    """Those of the members whose number in [0, 1), drawn from their content, is below `share`; 1 to `most` of them."""

    def number(i: int) -> float:
        return int(hashlib.sha256(f"{purpose} {digests[i]}".encode()).hexdigest()[:12], 16) / 16**12

    ranked = sorted((number(i), i) for i in members)
    below = sum(drawn < share for drawn, _ in ranked)
    return [i for _, i in ranked[: min(max(1, below), most)]]


def few_shot_positions(labels: np.ndarray, shots: int, seed: int, kinds: np.ndarray | None = None) -> list[int]:
    """`shots` positions of each class, as CoOp draws them: Python's `random.sample`, classes by first appearance.

    Args:
        labels: (N,).
        kinds: (N,) which images of a class are alike, see `Source`: one of each kind, in random order, before a second.

    Raises:
        ValueError: shots below 1, or more than the smallest class has.
    """
    by_class: dict[int, list[int]] = {}
    for position, label in enumerate(np.asarray(labels).tolist()):
        by_class.setdefault(label, []).append(position)
    smallest = min(map(len, by_class.values()), default=0)
    if not 1 <= shots <= smallest:
        raise ValueError(f"shots={shots}: the smallest class has {smallest} images, so expected 1..{smallest}")
    generator = random.Random(seed)
    drawn = (
        generator.sample(positions, shots) if kinds is None else _in_turn(positions, kinds, generator)[:shots]
        for positions in by_class.values()
    )
    return [position for positions in drawn for position in positions]


def _in_turn(positions: list[int], kinds: np.ndarray, generator: random.Random) -> list[int]:
    """All positions in random order, no kind a second time before each has come."""
    piles: dict[int, list[int]] = {}
    for position in generator.sample(positions, len(positions)):
        piles.setdefault(int(kinds[position]), []).append(position)
    return [position for turn in zip_longest(*piles.values()) for position in turn if position is not None]


def chosen_positions(
    source: Source,
    name: str,
    subset: int | None,
    fraction: float | None,
    shots: int | None,
    classes: Sequence[str] | None,
    seed: int,
) -> np.ndarray | None:
    """Positions of the images that `load_dataset` is asked for, in ascending order or, of `shots`, as drawn; None: all.

    Raises:
        ValueError: as `load_dataset`.
    """
    if (subset is not None or shots is not None) and fraction is not None:
        raise ValueError(
            f"subset={subset}, fraction={fraction}, shots={shots}: give subset or fraction, not both, and "
            "shots without fraction"
        )
    labels, class_names, kept = source.labels, source.class_names, np.arange(len(source.labels))
    if classes is not None:
        unknown = [wanted for wanted in classes if wanted not in class_names]
        if unknown or not len(classes):
            listed = ", ".join(class_names)
            raise ValueError(f"classes: no class {', '.join(unknown) or '(none named)'}; expected some of {listed}")
        kept = np.flatnonzero(np.isin(labels, [class_names.index(wanted) for wanted in classes]))
        labels, class_names = labels[kept], tuple(classes)
    if shots is not None:
        drawn = few_shot_positions(labels, shots, seed, None if source.kinds is None else source.kinds[kept])
        kept, labels = kept[drawn], labels[drawn]
    count = _wanted(len(labels), len(class_names), subset, fraction, name)
    if count is None:
        return None if classes is None and shots is None else kept
    return kept[stratified_choice(labels, count, seed)]


def _wanted(available, classes, subset, fraction, name) -> int | None:
    """How many images to keep; None for all."""
    if fraction is not None:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction={fraction}: expected a share in (0, 1]")
        subset = max(round(fraction * available), classes)
    if subset is None or subset >= available:
        return None
    if subset < classes:
        raise ValueError(
            f"subset={subset} leaves classes empty: {name} has {classes} classes; expected at least {classes}"
        )
    return subset
