"""The papers' data sets as torchvision reads them, and the splits their protocols use."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

import numpy as np

from vpkit.datasets.sampling import split_off_validation, split_pool
from vpkit.datasets.source import Source, file_source, fitted
from vpkit.imagenet_names import clip_imagenet_names

_OFFICIAL = {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}}
_NO_VAL = {"train": {"split": "train"}, "test": {"split": "test"}}
_PETS = {"train": {"split": "trainval"}, "test": {"split": "test"}}
_VAL_AS_TEST = {"train": {"split": "train"}, "test": {"split": "val"}}
_CIFAR = {"train": {"train": True}, "test": {"train": False}}


@dataclass(frozen=True)
class TorchvisionSet:
    """How a torchvision class gives train, val and test.

    Attributes:
        build: called as `build(root, download=..., **splits[split])`; a class of `torchvision.datasets` by its name,
            because importing torchvision takes as long as all the rest.
        folder: where it looks, below the data root.
        splits: arguments for each official split. Without "val", 10 % of train is held out by seed. Empty for a
            set without any split: 50 / 20 / 30 % by seed.
        split_file: the CoOp split file, used instead where it lies in the set's folder.
        class_names: the names, from the built set, where torchvision has none or others.
        own_root: the class looks in its root itself, so it is given `root / folder`.
    """

    build: Callable | str
    folder: str
    splits: dict = field(default_factory=dict)
    split_file: str | None = None
    class_names: Callable = lambda dataset: dataset.classes
    own_root: bool = False
    takes_download: bool = True

    def builder(self) -> Callable:
        """The class, or what stands for it."""
        if not isinstance(self.build, str):
            return self.build
        from torchvision import datasets

        return getattr(datasets, self.build)

    @property
    def split_rule(self) -> str:
        """One line for tables."""
        rule = self.own_split_rule
        return f"CoOp's file if present, else {rule}" if self.split_file else rule

    @property
    def own_split_rule(self) -> str:
        """Without CoOp's file."""
        rule = "official" if "val" in self.splits else "official; val: 10 % of train (seeded)"
        return rule if self.splits else "50 / 20 / 30 % (seeded)"


def load_torchvision(name: str, row: TorchvisionSet, split: str, seed: int, root: Path) -> Source:
    """One split of a torchvision set under `root`.

    Raises:
        FileNotFoundError: the files are not there; the message says where they belong.
    """
    if (split_file := _split_file(root, row)) is not None:
        return replace(load_coop_split(split_file, split), rule=split_file.name)
    place = root / row.folder if row.own_root else root
    arguments = row.splits.get(split) or row.splits.get("train") or {}
    try:
        dataset = row.builder()(place, **arguments)
    except (RuntimeError, FileNotFoundError) as error:
        raise FileNotFoundError(
            f"{name} is not complete under {root / row.folder} ({error}): `vpkit fetch {name}` gets its files, or says "
            f"how to come by them; they lie there as torchvision's {row.builder().__name__} expects them"
        ) from error
    if row.split_file:
        warnings.warn(
            f"{name}: {row.split_file} is not under {root / row.folder}, so its splits are {row.own_split_rule}, which "
            f"are not the papers': `vpkit fetch {name}` gets the file",
            stacklevel=2,
        )
    source = replace(_as_source(dataset, row), rule=row.own_split_rule)
    if not row.splits:
        return split_pool(source, split, seed, test_share=0.3, val_share=2 / 7)
    if split == "test" or "val" in row.splits:
        return source
    return split_off_validation(source, split, seed)


def _as_source(dataset, row: TorchvisionSet) -> Source:
    """Files in the order of their paths where the set is made of files, else whatever indexing gives."""
    names = row.class_names(dataset)
    names = [str(name[0] if isinstance(name, tuple) else name).replace("_", " ") for name in names]
    files = getattr(dataset, "_samples", None) or getattr(dataset, "samples", None)
    if files is None and hasattr(dataset, "_image_files"):
        files = zip(dataset._image_files, dataset._labels, strict=True)
    if files is not None:
        paths, labels = zip(*sorted((str(path), int(label)) for path, label in files), strict=True)
        return file_source(paths, labels, names)

    def decode(i, size):
        try:
            return fitted(dataset[int(i)][0], size)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"image {i} of {dataset.root} is not readable ({error}); fetch its files again") from error

    labels = next(getattr(dataset, a) for a in ("targets", "labels", "_labels", "y") if hasattr(dataset, a))
    return Source(np.asarray(labels, dtype=np.int64), tuple(names), decode, f"{type(dataset).__name__} {dataset.root}")


def _split_file(root: Path, row: TorchvisionSet) -> Path | None:
    if row.split_file is None:
        return None
    places = (root / row.folder / row.split_file, root / row.split_file)
    return next((path for path in places if path.is_file()), None)


def load_coop_split(path: Path, split: str) -> Source:
    """A `split_zhou_*.json`: {"train": [[relative path, label, class name], ...], "val": ..., "test": ...}."""
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
        rows = parts[split]
        names = {int(label): str(name) for part in parts.values() for _, label, name in part}
        relative, labels = [str(row[0]) for row in rows], [int(row[1]) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a CoOp split file ({error}); expected train, val and test lists") from error
    if sorted(names) != list(range(len(names))):
        raise ValueError(
            f"{path}: labels are {sorted(names)[:5]} ..., expected 0..{len(names) - 1}; use CoOp's own file"
        )
    below = [path.parent / folder for folder in _IMAGE_FOLDERS]
    images = next((folder for folder in below if relative and (folder / relative[0]).exists()), path.parent)
    outside = [name for name in relative if not (images / name).resolve().is_relative_to(path.parent.resolve())]
    if outside:
        raise ValueError(f"{path}: {outside[0]} lies outside {path.parent}; expected paths below it")
    class_names = [names[label].replace("_", " ") for label in range(len(names))]
    return file_source([images / name for name in relative], labels, class_names)


# Where the images of a split file lie, below the folder that holds it.
_IMAGE_FOLDERS = (
    ".", "images", "dtd/images", "jpg", "2750", "SUN397", "101_ObjectCategories", "caltech-101", "UCF-101-midframes",
)  # fmt: skip
_CLEVR_NAMES = ("three", "four", "five", "six", "seven", "eight", "nine", "ten")


def _clevr_count(root, split="train", download=False):
    """Counts 3..10 as labels 0..7; the official test images have no labels, so `val` serves as test (as in VTAB)."""
    from torchvision.datasets import CLEVRClassification

    dataset = CLEVRClassification(root, split=split, download=download)
    dataset._labels = [count - 3 for count in dataset._labels]
    return dataset


def _names(*values):
    return lambda dataset: values


def _listed(name: str):
    """Of `data/class_names`: traffic signs as ILM-VP calls them; flowers, which torchvision knows only since 0.20."""
    return _names(*(resources.files("vpkit") / "data" / "class_names" / f"{name}.txt").read_text().splitlines())


TORCHVISION_SETS: dict[str, TorchvisionSet] = {
    "cifar10": TorchvisionSet("CIFAR10", "cifar-10-batches-py", _CIFAR),
    "cifar100": TorchvisionSet("CIFAR100", "cifar-100-python", _CIFAR),
    "svhn": TorchvisionSet("SVHN", "svhn", _NO_VAL, class_names=_names(*"0123456789"), own_root=True),
    "gtsrb": TorchvisionSet("GTSRB", "gtsrb", _NO_VAL, class_names=_listed("gtsrb")),
    "flowers102": TorchvisionSet(
        "Flowers102", "flowers-102", _OFFICIAL, "split_zhou_OxfordFlowers.json", class_names=_listed("flowers102")
    ),
    "dtd": TorchvisionSet("DTD", "dtd", _OFFICIAL, "split_zhou_DescribableTextures.json"),
    "food101": TorchvisionSet("Food101", "food-101", _NO_VAL, "split_zhou_Food101.json"),
    "eurosat": TorchvisionSet("EuroSAT", "eurosat", {}, "split_zhou_EuroSAT.json"),
    "oxford_pets": TorchvisionSet("OxfordIIITPet", "oxford-iiit-pet", _PETS, "split_zhou_OxfordPets.json"),
    "stanford_cars": TorchvisionSet(
        "StanfordCars", "stanford_cars", _NO_VAL, "split_zhou_StanfordCars.json", takes_download=False
    ),
    "sun397": TorchvisionSet("SUN397", "SUN397", {}, "split_zhou_SUN397.json"),
    "caltech101": TorchvisionSet(
        "Caltech101", "caltech101", {}, "split_zhou_Caltech101.json", class_names=lambda dataset: dataset.categories
    ),
    "fgvc_aircraft": TorchvisionSet("FGVCAircraft", "fgvc-aircraft-2013b", _OFFICIAL),
    "clevr_count": TorchvisionSet(_clevr_count, "clevr", _VAL_AS_TEST, class_names=_names(*_CLEVR_NAMES)),
    "imagenet": TorchvisionSet(
        "ImageNet",
        "imagenet",
        _VAL_AS_TEST,
        class_names=lambda _: clip_imagenet_names(),
        own_root=True,
        takes_download=False,
    ),
}
