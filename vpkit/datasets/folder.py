"""Any folder of images as a dataset: `load_dataset("folder:PATH", split)`."""

import sys
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from PIL import Image

from vpkit.datasets.sampling import split_by_content
from vpkit.datasets.source import Source, content_digest, file_source

SPLITS = ("train", "val", "test")
_ALSO_VAL = ("valid", "validation")
_HEIC = (".heic", ".heif")


def load_folder(root: Path, split: str, seed: int) -> Source:
    """`root/{train,val,test}/<class>/*`, or `root/<class>/*`, of which about 72 / 8 / 20 % of each class are one split.

    The second is split by content: where a file belongs does not change when others are added or removed, the test
    part does not depend on `seed`, and copies of a file stay together. With `train` and `test` but no `val` (or
    `valid`, `validation`), validation is a tenth of train. Class names are folder names, sorted, with `_` read as a
    space; images lie in them at any depth. What was read and passed over in each class is said in one line. The split
    "all" is every image of `root/<class>/*`, for images that are only looked at, such as source examples.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: fewer than two classes, two folders for one class, a class without images or with too few for three
            splits, or classes that differ between splits.
    """
    root = Path(root).expanduser().absolute()  # the cache's key: however it is called, it is one folder
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder; expected {root}/<class>/* or {root}/{{train,val,test}}/<class>/*"
        )
    if split == "all":
        return _read_classes(root)
    folders = {name: root / name for name in SPLITS if (root / name).is_dir()}
    for also in _ALSO_VAL:
        if (root / also).is_dir():
            if "val" in folders:
                raise ValueError(f"{root} has {folders['val'].name} and {also}: which is for validation? Keep one")
            folders["val"] = root / also
    if not folders:
        source = _read_classes(root)
        return split_by_content(source, [content_digest(path) for path in source.paths], split, seed)
    if not {"train", "test"} <= set(folders):
        raise ValueError(
            f"{root} has {', '.join(folders)} only: expected train and test (val may be missing), or classes"
        )
    sources = {name: _read_classes(folder) for name, folder in folders.items()}
    for name, source in sources.items():
        different = set(source.class_names) ^ set(sources["train"].class_names)
        if different:
            raise ValueError(
                f"{root}: train and {name} differ in the classes {', '.join(sorted(different))}; expected no difference"
            )
    if split in sources and (split == "test" or "val" in sources):
        return sources[split]
    train = sources["train"]
    return split_by_content(train, [content_digest(path) for path in train.paths], split, seed, test_share=0)


def image_files(folder: Path) -> tuple[list[Path], Counter]:
    """Images below `folder`, at any depth, by their endings, sorted; and how many other files there are, by ending."""
    endings, found, others = _endings(), [], Counter[str]()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        hidden = any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)
        if path.suffix.lower() in endings and not hidden:
            found.append(path)
        else:
            others["hidden" if hidden else path.suffix.lower() or "no ending"] += 1
    return found, others


def _read_classes(folder: Path) -> Source:
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    read = {path.name: image_files(path) for path in folders}
    files = {name: found for name, (found, _) in read.items()}
    if not any(files.values()):
        kinds = ", ".join(sorted({kind for _, others in read.values() for kind in others}))
        lacking = f" (there is {kinds}{_heic_hint(kinds)})" if kinds else ""
        raise ValueError(f"{folder} has no images{lacking}: expected {folder}/<class>/*.jpg, .png, ...")
    if len(files) < 2:
        raise ValueError(f"{folder} has one class ({', '.join(files)}): a classifier needs at least two class folders")
    empty = [name for name, found in files.items() if not found]
    if empty:
        raise ValueError(f"{folder} has no image of: {', '.join(empty)}; add some, or remove the folder")
    names = [name.replace("_", " ") for name in files]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        same = ", ".join(name for name in files if name.replace("_", " ") == twice[0])
        raise ValueError(f"{folder}: the folders {same} are all the class {twice[0]!r}: rename or merge them")
    _say_once(f"{folder.name}: " + "; ".join(_counted(name, *read[name]) for name in list(files)[:12]), len(files) - 12)
    paths = [path for found in files.values() for path in found]
    labels = [label for label, found in enumerate(files.values()) for _ in found]
    return file_source(paths, labels, names)


def _counted(name: str, found: list[Path], others: Counter) -> str:
    """A class in words: `cat 12 .jpg, 3 .png (passed over: 2 .txt)`."""
    kinds = Counter(path.suffix.lower() for path in found)
    text = f"{name} {_listed(kinds)}"
    return f"{text} (passed over: {_listed(others)}{_heic_hint(others)})" if others else text


def _listed(kinds: Counter) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _heic_hint(kinds) -> str:
    return "; pip install pillow-heif to read these" if any(kind in kinds for kind in _HEIC) else ""


@lru_cache(maxsize=1000)
def _say_once(text: str, more: int) -> None:
    print(text + (f"; and {more} more classes" if more > 0 else ""), file=sys.stderr)


@lru_cache(maxsize=1)
def _endings() -> frozenset[str]:
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return frozenset(Image.registered_extensions())
