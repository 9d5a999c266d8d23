"""Images before they are decoded: what a loader hands to the cache, one image at a time."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vpkit.interfaces import Resize


@dataclass(frozen=True)
class Source:
    """The images of one split, still encoded.

    Attributes:
        labels: (N,) int64.
        class_names: the T names, in label order.
        decode: `decode(i, size)` returns image i as (size, size, 3) uint8.
        fingerprint: changes when the images behind it do; part of the cache's name.
        may_lack_classes: a split without images of some class is no mistake (WILDS, ImageNet-A).
        pool, positions: for a part, the images it was taken from and which of them these are: parts of one pool, such
            as the splits of several seeds, are decoded once.
        paths: the N files, if the images are files.
        rule: how the split came about, in words.
        validated_by: what a training split was before a validation split was taken from it.
        kinds: (N,) numbers of what images are variants of, such as the design they draw; few shots take kinds in turn.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    decode: Callable[[int, int], np.ndarray]
    fingerprint: str = ""
    may_lack_classes: bool = False
    pool: "Source | None" = None
    positions: np.ndarray | None = None
    paths: tuple[Path, ...] = ()
    rule: str = ""
    validated_by: "Source | None" = None
    kinds: np.ndarray | None = None

    def part(self, positions: Sequence[int] | np.ndarray) -> "Source":
        """The images at `positions` as a source of their own."""
        chosen = np.asarray(positions, dtype=np.int64)
        fingerprint = hashlib.sha256(self.fingerprint.encode() + chosen.tobytes()).hexdigest()
        decode = self.decode
        taken = lambda i, size: decode(int(chosen[i]), size)  # noqa: E731
        pool, place = (self, chosen) if self.positions is None else (self.pool, self.positions[chosen])
        paths = tuple(self.paths[i] for i in chosen) if self.paths else ()
        return Source(
            self.labels[chosen], self.class_names, taken, fingerprint, self.may_lack_classes, pool, place, paths,
            self.rule, kinds=None if self.kinds is None else self.kinds[chosen],
        )  # fmt: skip


def file_source(paths: Sequence[str | Path], labels: Sequence[int], class_names: Sequence[str]) -> Source:
    """Images in files; the fingerprint covers every path, size and time of change.

    Raises:
        ValueError: unreadable or missing files, each named (up to ten).
    """
    files = [Path(path) for path in paths]
    stamps, unreadable = [], []
    for path in files:
        try:
            stat = path.stat()
            stamps.append(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}")
        except OSError as error:
            unreadable.append(f"{path} ({error.strerror})")
    if unreadable:
        raise ValueError(f"{len(unreadable)} image files cannot be read: {', '.join(unreadable[:10])}")
    digest = hashlib.sha256("\n".join(stamps).encode("utf-8", "surrogateescape")).hexdigest()
    decode = lambda i, size: read_image(files[i], size)  # noqa: E731
    return Source(np.asarray(labels, dtype=np.int64), tuple(class_names), decode, digest, paths=tuple(files))


def content_digest(path: str | Path) -> str:
    """16 hexadecimal digits that say what is in a file; read again only if its size or time of change differ."""
    stat = os.stat(path)
    return _content_digest(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1_000_000)
def _content_digest(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_image(path: str | Path, size: int) -> np.ndarray:
    """Decode one image file to (size, size, 3) uint8; see `fitted`.

    Raises:
        ValueError: the file is not a readable image, or its numbers have no known range; the message names it.
    """
    try:
        with Image.open(path) as image:
            return fitted(ImageOps.exif_transpose(image), size)
    except UnknownRange as error:
        raise ValueError(f"{path}: {error}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error}); replace or remove this file") from error


def fitted(image: Image.Image, size: int) -> np.ndarray:
    """An opened image as (size, size, 3) uint8 RGB; how it comes to that side, a `Resize` says."""
    rgb, how = _rgb(image), size if isinstance(size, Resize) else Resize(size)
    filter_ = Image.Resampling.BICUBIC if how.interpolation == "bicubic" else Image.Resampling.BILINEAR
    if how.rule == "squash":
        return np.asarray(rgb.resize((how, how), filter_))
    short = round(how * how.enlarged)
    scale = short / min(rgb.size)
    width, height = (max(short, int(side * scale)) for side in rgb.size)  # rounded as torchvision rounds
    left, top = round((width - how) / 2), round((height - how) / 2)
    return np.asarray(rgb.resize((width, height), filter_).crop((left, top, left + how, top + how)))


class UnknownRange(ValueError):
    """Pixels whose black and white cannot be known."""


def _rgb(image: Image.Image) -> Image.Image:
    """Eight bits a channel, scaled by the depth there was, and what is transparent on white."""
    if image.mode == "F" or image.mode.startswith("I"):  # one channel of floats, 16 or 32 bits
        values = np.asarray(image, dtype=np.float64)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        tops = {"F": (1.0, 255.0), "I": (255, 65535)}.get(image.mode, (65535,))
        top = next((top for top in tops if high <= top), None)
        if top is None or low < 0:
            expected = " or ".join(f"0..{top:g}" for top in tops)
            raise UnknownRange(f"its pixels run from {low:g} to {high:g}: expected {expected}; save it with 8 bits")
        return Image.fromarray(np.nan_to_num(values * (255 / top)).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
