"""Any folder of images as a dataset: `load_dataset("folder:PATH", split)`."""

from pathlib import Path

from PIL import Image

from vpkit.datasets.sampling import split_off_validation, split_pool
from vpkit.datasets.source import Source, file_source

SPLITS = ("train", "val", "test")


def load_folder(root: Path, split: str, seed: int) -> Source:
    """`root/{train,val,test}/<class>/*`, or `root/<class>/*` split 72 / 8 / 20 % by `seed`, stratified.

    With `train` and `test` but no `val`, validation is 10 % of train. Class names are folder names, sorted, with
    `_` read as a space. Files that are not images by their ending, and hidden ones, are passed over. The split "all"
    is every image of `root/<class>/*`, for images that are only looked at, such as source examples.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: fewer than two classes, a class without images, or classes that differ between splits.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder; expected {root}/<class>/* or {root}/{{train,val,test}}/<class>/*"
        )
    if split == "all":
        return _read_classes(root)
    present = [name for name in SPLITS if (root / name).is_dir()]
    if not present:
        return split_pool(_read_classes(root), split, seed)
    if not {"train", "test"} <= set(present):
        raise ValueError(
            f"{root} has {', '.join(present)} only: expected train and test (val may be missing), or classes"
        )
    sources = {name: _read_classes(root / name) for name in present}
    for name, source in sources.items():
        different = set(source.class_names) ^ set(sources["train"].class_names)
        if different:
            raise ValueError(f"{root}: train and {name} differ in the classes {', '.join(sorted(different))}")
    if split in sources and (split == "test" or "val" in sources):
        return sources[split]
    return split_off_validation(sources["train"], split, seed)


def _read_classes(folder: Path) -> Source:
    endings = Image.registered_extensions()
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = {
        path.name: sorted(
            file for file in path.iterdir() if file.suffix.lower() in endings and not file.name.startswith(".")
        )
        for path in folders
    }
    if not any(files.values()):
        raise ValueError(f"{folder} has no images: expected {folder}/<class>/*.jpg, .png, ...")
    if len(files) < 2:
        raise ValueError(f"{folder} has one class ({', '.join(files)}): a classifier needs at least two class folders")
    empty = [name for name, found in files.items() if not found]
    if empty:
        raise ValueError(f"{folder} has no image of: {', '.join(empty)}")
    paths = [path for found in files.values() for path in found]
    labels = [label for label, found in enumerate(files.values()) for _ in found]
    return file_source(paths, labels, [name.replace("_", " ") for name in files])
