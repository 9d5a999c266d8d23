"""Where the files of the data sets come from: what `vpkit fetch` downloads, and what has to be got by hand."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlparse

from vpkit.datasets.abide import ABIDE_SERIES, ABIDE_TABLE
from vpkit.datasets.paper_sets import IMAGENET_FOLDERS
from vpkit.datasets.torchvision_sets import TORCHVISION_SETS, TorchvisionSet
from vpkit.downloads import download

__all__ = ["BY_HAND", "Archive", "archives_of", "fetch_dataset"]

# CoOp's splits: identifiers of Google Drive, from CoOp's DATASETS.md.
_COOP_SPLITS = {
    "split_zhou_Caltech101.json": "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",
    "split_zhou_DescribableTextures.json": "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x",
    "split_zhou_EuroSAT.json": "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o",
    "split_zhou_Food101.json": "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl",
    "split_zhou_OxfordFlowers.json": "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
    "split_zhou_OxfordPets.json": "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
    "split_zhou_StanfordCars.json": "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
    "split_zhou_SUN397.json": "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq",
    "split_zhou_UCF101.json": "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
}
_DRIVE = "https://drive.google.com/uc?export=download&id="
_ABIDE = "https://s3.amazonaws.com/fcp-indi/data/Projects/ABIDE_Initiative"
_RESISC45 = "https://huggingface.co/datasets/torchgeo/resisc45/resolve/main"
_VARIANTS = {
    "imagenet_v2": (
        "https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz"
    ),
    "imagenet_a": "https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",
    "imagenet_r": "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
}

_WILDS = (
    "the host of the WILDS archives (worksheets.codalab.org) answers with errors since April 2026 (p-lambda/wilds#174 "
    "and #175): ask there, or take a copy of `wilds/{name}_v*` from someone who has one; `pip install wilds` tries"
)
BY_HAND = {  # what no program can get, or what is gone from where it was: how to come by it (November 2026)
    "stanford_cars": (
        "Stanford's page is gone. Images: kaggle.com/datasets/jessicali9530/stanford-cars-dataset, as "
        "stanford_cars/cars_train and cars_test; car_devkit.tgz and cars_test_annos_withlabels.mat: attached to "
        "github.com/pytorch/vision/issues/7545"
    ),
    "sun397": (
        "Princeton's and MIT's archives answer 404 (github.com/pytorch/vision/issues/9348). A copy of 37 GB: "
        "opendatalab.com/OpenDataLab/SUN397; unpack it as SUN397/ below the data root"
    ),
    "ucf101": (
        "UCF-101-midframes.zip of CoOp's DATASETS.md, on Google Drive (file 10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O, too "
        "large for a program to be let through): unpack it as ucf101/UCF-101-midframes"
    ),
    "imagenet": "image-net.org, after registration: ILSVRC2012_img_train.tar, _img_val.tar and _devkit_t12.tar.gz",
    "imagenet_sketch": "github.com/HaohanWang/ImageNet-Sketch (Google Drive or Kaggle): unpack it as imagenet-sketch/",
    "iwildcam": _WILDS.format(name="iwildcam") + "; its photos are also at lila.science/datasets/wcscameratraps",
    "fmow": _WILDS.format(name="fmow"),
    "camelyon17": _WILDS.format(name="camelyon17"),
}


@dataclass(frozen=True)
class Archive:
    """A file that a data set needs.

    Attributes:
        url: where it comes from.
        path: where it belongs.
        md5: of its bytes; "" if it is not known.
        unpack: it is an archive whose content belongs beside it.
    """

    url: str
    path: Path
    md5: str = ""
    unpack: bool = False

    @property
    def is_here(self) -> bool:
        """The file, or what was unpacked from it."""
        return self.path.is_file() or self.done.is_file()

    @property
    def done(self) -> Path:
        """A file that says that it was unpacked."""
        return self.path.with_name(f".{self.path.name}.unpacked")


def archives_of(name: str, root: Path) -> list[Archive]:
    """What can be fetched for a row of `DATASETS`, and where each file belongs below `root`; [] if nothing has to be,
    or nothing can."""
    if name in TORCHVISION_SETS:
        row = TORCHVISION_SETS[name]
        return [*([] if _is_whole(row, root) else _of_torchvision(row, root)), *_coop_split(row, root)]
    if name == "ucf101":
        return [_drive("split_zhou_UCF101.json", root / "ucf101")]
    if name == "resisc45":
        folder = root / "resisc45"
        lists = [Archive(f"{_RESISC45}/{part}", folder / part) for part in _lists()]
        return [Archive(f"{_RESISC45}/NWPU-RESISC45.zip", folder / "NWPU-RESISC45.zip", unpack=True), *lists]
    if name in _VARIANTS:
        url = _VARIANTS[name]
        folder = (root / IMAGENET_FOLDERS[name.removeprefix("imagenet_")]).parent
        return [Archive(url, folder / url.rsplit("/", 1)[1], unpack=True)]
    if name == "abide":
        return [Archive(f"{_ABIDE}/{ABIDE_TABLE}", root / "abide" / ABIDE_TABLE)]
    return []


def fetch_dataset(name: str, root: Path) -> None:
    """Download what `archives_of` lists, check it and unpack it.

    Raises:
        OSError: an address that does not answer; the message names it.
        ValueError: a file with another sum than was published.
    """
    for archive in archives_of(name, root):
        if not archive.is_here:
            download(archive.url, archive.path, archive.md5)
        if archive.unpack and not archive.done.is_file():
            from torchvision.datasets.utils import extract_archive

            extract_archive(str(archive.path), str(archive.path.parent))
            archive.done.touch()
    if name == "abide":
        _fetch_abide(root / "abide")
    if name in ("iwildcam", "fmow", "camelyon17"):
        from wilds import get_dataset

        (root / "wilds").mkdir(parents=True, exist_ok=True)
        get_dataset(name, root_dir=str(root / "wilds"), download=True)
    row = TORCHVISION_SETS.get(name)
    if row is not None and _of_torchvision(row, root) and not _is_whole(row, root):
        for arguments in list(row.splits.values()) or [{}]:  # it finds the archives, and unpacks them its own way
            row.builder()(_place(row, root), download=True, **arguments)


def _fetch_abide(folder: Path) -> None:
    import pandas as pd

    names = pd.read_csv(folder / ABIDE_TABLE, usecols=["FILE_ID"]).FILE_ID
    for name in names[names != "no_filename"]:
        file = f"{ABIDE_SERIES}/{name}_rois_cc200.1D"
        download(f"{_ABIDE}/{file}", folder / file)


def _coop_split(row: TorchvisionSet, root: Path) -> list[Archive]:
    return [_drive(row.split_file, root / row.folder)] if row.split_file else []


def _drive(file_name: str, folder: Path) -> Archive:
    return Archive(_DRIVE + _COOP_SPLITS[file_name], folder / file_name)


def _lists() -> list[str]:
    return [f"resisc45-{split}.txt" for split in ("train", "val", "test")]


def _of_torchvision(row: TorchvisionSet, root: Path) -> list[Archive]:
    """What a class of torchvision would fetch: it is asked to, elsewhere, while its downloads only take notes."""
    if not row.takes_download or row.folder == "SUN397":  # whose address is dead
        return []
    asked: dict[Archive, None] = {}
    with _noted(asked), TemporaryDirectory() as elsewhere:
        for arguments in list(row.splits.values()) or [{}]:
            with suppress(OSError, RuntimeError):  # nothing was fetched, so nothing is found
                row.builder()(_place(row, Path(elsewhere)), download=True, **arguments)
        return [replace(archive, path=root / archive.path.relative_to(elsewhere)) for archive in asked]


def _place(row: TorchvisionSet, root: Path) -> Path:
    return root / row.folder if row.own_root else root


def _is_whole(row: TorchvisionSet, root: Path) -> bool:
    """The images of all splits are there, whatever became of the archives."""
    if not (root / row.folder).is_dir():  # some make it while they look
        return False
    try:
        for arguments in list(row.splits.values()) or [{}]:
            row.builder()(_place(row, root), **arguments)
    except (OSError, RuntimeError):
        return False
    return True


@contextmanager
def _noted(asked: dict[Archive, None]) -> Iterator[None]:
    """torchvision's data sets write down what they would download, and download nothing."""
    import torchvision.datasets  # noqa: F401 (its modules have the functions by name)

    def note(url, root, filename=None, md5=None):
        name = filename or Path(urlparse(str(url)).path).name
        asked[Archive(str(url), Path(root) / name, md5 or "")] = None

    def note_and_extract(url, download_root, extract_root=None, filename=None, md5=None, remove_finished=False):
        note(url, download_root, filename, md5)

    replaced = {"download_url": note, "download_and_extract_archive": note_and_extract}
    modules = [module for name, module in sys.modules.items() if name.startswith("torchvision.datasets.")]
    before = [(m, name, vars(m)[name]) for m in modules for name in replaced if name in vars(m)]
    try:
        for module, function, _ in before:
            setattr(module, function, replaced[function])
        yield
    finally:
        for module, function, original in before:
            setattr(module, function, original)
