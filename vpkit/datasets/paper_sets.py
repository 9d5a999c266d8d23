"""The papers' image sets that torchvision does not have: UCF101, RESISC45, ImageNet's relatives, WILDS."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from vpkit.datasets.sampling import split_off_validation, split_pool
from vpkit.datasets.source import Source, file_source, fitted
from vpkit.datasets.torchvision_sets import load_coop_split

_ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}

# Below the data root; in the places where CoOp's instructions put them.
IMAGENET_FOLDERS = {
    "v2": "imagenetv2/imagenetv2-matched-frequency-format-val",
    "sketch": "imagenet-sketch/images",
    "a": "imagenet-adversarial/imagenet-a",
    "r": "imagenet-rendition/imagenet-r",
}
_IMAGENET_PAGES = {
    "v2": "huggingface.co/datasets/vaishaal/ImageNetV2",
    "sketch": "github.com/HaohanWang/ImageNet-Sketch",
    "a": "github.com/hendrycks/natural-adv-examples",
    "r": "github.com/hendrycks/imagenet-r",
}
_CAMELYON_NAMES = ("not containing", "containing")  # what VP's template speaks of


def load_ucf101(split: str, seed: int, root: Path) -> Source:
    """The middle frame of each video. CoOp's split file if it is there, else the official lists 01, val by `seed`.

    `root/ucf101/` holds `UCF-101-midframes/<Class_Name>/*.jpg` and `split_zhou_UCF101.json`, or `ucfTrainTestlist/`.

    Raises:
        FileNotFoundError: the frames or the lists are not there.
    """
    folder = root / "ucf101"
    if (split_file := folder / "split_zhou_UCF101.json").is_file():
        return load_coop_split(split_file, split)
    names_file = folder / "ucfTrainTestlist" / "classInd.txt"
    if not names_file.is_file() or not (folder / "UCF-101-midframes").is_dir():
        raise FileNotFoundError(
            f"ucf101 is not complete under {folder}: expected UCF-101-midframes/ and split_zhou_UCF101.json (`vpkit "
            "fetch ucf101` says how to come by both), or the official ucfTrainTestlist/ "
            "(www.crcv.ucf.edu/data/UCF101.php)"
        )
    actions = [line.split()[1] for line in names_file.read_text().splitlines() if line.strip()]
    spelt = {action: "_".join(re.findall("[A-Z][^A-Z]*", action)) for action in actions}
    listed = (folder / "ucfTrainTestlist" / f"{'test' if split == 'test' else 'train'}list01.txt").read_text().split()
    videos = [Path(word) for word in listed if word.endswith(".avi")]  # the training list has labels between them
    frames = [folder / "UCF-101-midframes" / spelt[v.parent.name] / f"{v.stem}.jpg" for v in videos]
    labels = [actions.index(video.parent.name) for video in videos]
    source = file_source(frames, labels, [name.replace("_", " ") for name in spelt.values()])
    return source if split == "test" else split_off_validation(source, split, seed)


def load_resisc45(split: str, seed: int, root: Path) -> Source:
    """Satellite scenes; 60 / 20 / 20 % by the lists `resisc45-{train,val,test}.txt` if they are there, else by seed.

    `root/resisc45/NWPU-RESISC45/<class>/*.jpg`; the lists hold file names, one a line.

    Raises:
        FileNotFoundError: the images are not there.
    """
    folder = root / "resisc45"
    source, paths = _class_folders(folder / "NWPU-RESISC45", "resisc45", "doi.org/10.1109/JPROC.2017.2675998")
    listed = folder / f"resisc45-{split}.txt"
    if not listed.is_file():
        return split_pool(source, split, seed, test_share=0.2, val_share=0.25)
    position = {path.name: i for i, path in enumerate(paths)}
    names = listed.read_text().split()
    if missing := [name for name in names if name not in position]:
        raise ValueError(f"{listed} names {missing[0]}, which is not under {folder / 'NWPU-RESISC45'}")
    return source.part(sorted(position[name] for name in names))


def load_imagenet_variant(variant: str, split: str, seed: int, root: Path) -> Source:
    """ImageNet-V2, -Sketch, -A or -R as a data set of its own: its own classes, 70 / 10 / 20 % by seed.

    None of them has a training split; ILM-VP trains on two of them all the same and does not say how.
    """
    source, labels = _imagenet_variant(variant, root)
    present = np.unique(labels)
    names = tuple(source.class_names[label] for label in present)
    own = Source(np.searchsorted(present, labels), names, source.decode, source.fingerprint, may_lack_classes=True)
    return split_pool(own, split, seed, test_share=0.2, val_share=1 / 8)


def load_imagenet_domain(variant: str, split: str, seed: int, root: Path) -> Source:
    """The same images under ImageNet's 1000 labels, all of them test images: `load_dataset("imagenet:sketch", "test")`.

    -A and -R have images of 200 classes only.

    Raises:
        ValueError: another split than test, or an unknown domain.
    """
    if variant not in IMAGENET_FOLDERS:
        raise ValueError(f"unknown domain imagenet:{variant}: expected one of {', '.join(IMAGENET_FOLDERS)}")
    if split != "test":
        raise ValueError(f"imagenet:{variant} has test images only, not {split!r}: train on imagenet")
    return _imagenet_variant(variant, root)[0]


def load_wilds(name: str, split: str, seed: int, root: Path) -> Source:
    """A WILDS set as the package `wilds` reads it, below `root/wilds`; val and test are out of distribution.

    Raises:
        ImportError: the package is not installed.
        FileNotFoundError: the files are not there.
    """
    try:
        from wilds import get_dataset
    except ImportError as error:
        raise ImportError(f"{name} is read by the package wilds: pip install wilds") from error
    place = root / "wilds"
    try:
        with _dates_of_any_form():
            dataset = get_dataset(name, root_dir=str(place), download=False)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{name} is not complete under {place} ({error}): `vpkit fetch {name}` says how to come by it"
        ) from error
    part = dataset.get_subset(split)
    labels = np.asarray(part.y_array, dtype=np.int64).reshape(-1)
    names = _wilds_names(name, dataset)

    def decode(i: int, size: int) -> np.ndarray:
        return fitted(part[int(i)][0], size)

    return Source(labels, names, decode, f"wilds {name} {dataset.version} {place} {split}", may_lack_classes=True)


@contextmanager
def _dates_of_any_form() -> Iterator[None]:
    """FMoW has times with and without fractions of a second, which pandas 2 and later read only if told so."""
    import pandas as pd

    read = pd.to_datetime
    pd.to_datetime = partial(read, format="mixed")
    try:
        yield
    finally:
        pd.to_datetime = read


def _wilds_names(name: str, dataset) -> tuple[str, ...]:
    if name == "camelyon17":
        return _CAMELYON_NAMES
    if name == "fmow":
        return tuple(label.replace("_", " ") for label in dataset.category_to_idx)
    import pandas as pd

    table = pd.read_csv(Path(dataset.data_dir) / "categories.csv").sort_values("y")
    return tuple(table[table.y < dataset.n_classes].name)


def _class_folders(folder: Path, name: str, page: str) -> tuple[Source, list[Path]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{name} is not complete: expected {folder}/<class>/*.jpg ({page})")
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    found = [(file, k) for k, path in enumerate(classes) for file in _images_in(path)]
    if not found:
        raise FileNotFoundError(f"{folder} has no images: expected {folder}/<class>/*.jpg ({page})")
    paths, labels = zip(*found, strict=True)
    return file_source(paths, labels, [path.name.replace("_", " ") for path in classes]), list(paths)


def _imagenet_variant(variant: str, root: Path) -> tuple[Source, np.ndarray]:
    from timm.data import ImageNetInfo  # comes with open_clip

    from vpkit.imagenet_names import clip_imagenet_names

    folder = root / IMAGENET_FOLDERS[variant]
    source, paths = _class_folders(folder, f"imagenet:{variant}", _IMAGENET_PAGES[variant])
    synsets = {name: k for k, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    label_of = (lambda name: int(name)) if variant == "v2" else synsets.get
    labels = np.array([_label(label_of, path, folder) for path in paths], dtype=np.int64)
    return Source(labels, clip_imagenet_names(), source.decode, source.fingerprint, may_lack_classes=True), labels


def _label(label_of: Callable, path: Path, folder: Path) -> int:
    try:
        label = label_of(path.parent.name)
    except ValueError:
        label = None
    if label is None or not 0 <= label < 1000:
        raise ValueError(f"{folder} has a folder {path.parent.name!r}: expected ImageNet classes (synsets or 0..999)")
    return label


def _images_in(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in _ENDINGS and not f.name.startswith("."))
