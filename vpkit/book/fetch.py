"""What the models and data sets of a run need from the internet: listed with sizes, fetched, checked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vpkit.book.grids import read_grid
from vpkit.book.session import declared_values
from vpkit.datasets import DATASETS, data_root, load_source
from vpkit.datasets.archives import BY_HAND, archives_of, fetch_dataset
from vpkit.downloads import size_of
from vpkit.models.clip import CLIP_MODELS, open_clip_file
from vpkit.models.frozen import FROZEN_MODELS
from vpkit.models.hub import WeightFile, timm_file

__all__ = ["Need", "fetch", "names_in", "needs_of"]


@dataclass(frozen=True)
class Need:
    """What one model or data set needs.

    Attributes:
        name: as given.
        missing: addresses of what is not on this machine.
        by_hand: what has to be done by hand before it is complete; "" if nothing.
        file: of a model's weights; None for a data set, and for what comes with the installation.
    """

    name: str
    missing: tuple[str, ...] = ()
    by_hand: str = ""
    file: WeightFile | None = None

    def size(self) -> int | None:
        """Bytes to fetch, as the servers say; None if one of them does not.

        Raises:
            OSError: an address that does not answer.
        """
        sizes = [size_of(url) for url in self.missing]
        return None if None in sizes else sum(size for size in sizes if size is not None)


def names_in(grids: Iterable[str | Path]) -> list[str]:
    """The models and data sets that the points of grid files use, each once."""
    import nbformat

    found: dict[str, None] = {}
    for path in grids:
        for point in read_grid(path):
            values = declared_values(nbformat.reads(point.notebook, as_version=4)) | point.parameters
            domains = [name for name in values.get("shifted", []) if name.startswith(f"{values['dataset']}:")]
            found |= dict.fromkeys([values["model"], values["dataset"], *domains])
    return list(found)


def needs_of(names: Sequence[str], root: str | Path | None = None) -> list[Need]:
    """What each of `names`, models and data sets, needs.

    Raises:
        ValueError: a name that is neither.
    """
    return [_need(name, data_root(root)) for name in names]


def fetch(need: Need, root: str | Path | None = None) -> str:
    """Download what `need` lacks and see that it is whole; a line that says what there is now.

    Raises:
        OSError: an address that does not answer, or files that must be got by hand; the message says what to do.
        ValueError: a file with another sum than was published, or that is not what it should be.
    """
    if need.file is not None:
        return f"{need.name}: {need.file.here() or need.file.fetch()}"
    name, place = _row_of(need.name), data_root(root)
    if name not in DATASETS or not DATASETS[name].on_disk:
        return f"{need.name}: comes with vpkit"
    try:
        fetch_dataset(name, place)
        counts = {}
        for split in ("test",) if ":" in need.name else ("train", "val", "test"):
            counts[split] = len(load_source(need.name, split, root=place)[0].labels)
    except (OSError, RuntimeError, ImportError) as error:
        how = f"\n  by hand: {BY_HAND[name]}" if name in BY_HAND else ""
        raise OSError(f"{need.name}: {error}{how}") from error
    found = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    printed = DATASETS[name].sizes
    differs = printed is not None and ":" not in need.name and tuple(counts.values()) != printed
    said = f"; the papers have {' / '.join(f'{count:,}' for count in printed)}" if differs and printed else ""
    return f"{need.name}: {found}{said}"


def _need(name: str, root: Path) -> Need:
    if name in FROZEN_MODELS or name.startswith("timm:"):
        row = FROZEN_MODELS.get(name)
        make = partial(timm_file, name.removeprefix("timm:")) if row is None else row.weight_file
        return _model(name, None if make is None else make())
    target = CLIP_MODELS[name][0] if name in CLIP_MODELS else name
    if target.startswith("open_clip:") and target.count("/") == 1:
        return _model(name, open_clip_file(*target.removeprefix("open_clip:").split("/")))
    if name in CLIP_MODELS:
        return Need(name)
    base = _row_of(name)
    if name.startswith("folder:") or (base in DATASETS and not DATASETS[base].on_disk):
        return Need(name)
    if base not in DATASETS:
        raise ValueError(
            f"{name!r} is neither a model nor a data set: expected some of {', '.join(FROZEN_MODELS)}, "
            f"{', '.join(CLIP_MODELS)}, timm:NAME, open_clip:ARCHITECTURE/TAG, {', '.join(DATASETS)}"
        )
    missing = tuple(archive.url for archive in archives_of(base, root) if not archive.is_here)
    return Need(name, missing, BY_HAND.get(base, ""))


def _model(name: str, file: WeightFile | None) -> Need:
    missing = () if file is None or file.here() is not None else (file.url,)
    return Need(name, missing, file=file)


def _row_of(name: str) -> str:
    """`imagenet:v2`, a domain, has the files of `imagenet_v2`; `abide:upper` those of `abide`."""
    base, _, rest = name.partition(":")
    return f"{base}_{rest}" if base == "imagenet" and rest else base
