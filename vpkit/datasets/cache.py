"""Decoded splits on disk: one .npy file each, written image by image, mapped into memory when read.

A set larger than memory is never held whole: not while it is written, and not while it is used, because the mapped
file is read page by page, and a pass over the images gives the pages back as it goes (`forget_pages`).
"""

import hashlib
import json
import mmap
import os
import re
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from vpkit.datasets.source import Source
from vpkit.files import cache_folder, write_atomically
from vpkit.interfaces import Resize

_MAPPED = "mapped_file"  # the attribute of a tensor that holds the map its values lie in
_FORMAT = 4  # part of every cache's key: raise it when what a loader returns changes


def cached_images(name: str, source: Source, size: int) -> tuple[Tensor, Tensor | None]:
    """`source` at `size` px, decoded on first use: (M, 3, size, size) uint8, and which of these it is, (N,); None: all.

    A part of a pool is taken from the whole pool if that was decoded before, or if it is more than half of it; else
    it is decoded alone and gets a file of its own. So the splits of all seeds share one file.

    A file that is cut short, or was written for other images or by another version, is rebuilt. Of processes that
    want the same file at once, one decodes and the others wait for it.

    Raises:
        ValueError: images that cannot be decoded, each named (up to ten); no file is left behind.
        OSError: the cache cannot be written.
    """
    if source.pool is not None and source.positions is not None:
        pool, rows = source.pool, torch.from_numpy(source.positions)
        if (whole := _read(_file(name, pool, size), pool, size)) is not None:
            return whole, rows
        if 2 * len(rows) > len(pool.labels):
            return cached_images(name, pool, size)[0], rows
        name = f"{name}-{len(rows)}"
    path = _file(name, source, size)
    if (found := _read(path, source, size)) is not None:
        return found, None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):  # let go of by the system, should this process be killed
            if (found := _read(path, source, size)) is not None:  # by the one we waited for
                return found, None
            print(f"preparing {name} at {int(size)} px (once)", file=sys.stderr)
            write_atomically(path, lambda part: _write(part, source, size))
    except OSError as error:
        raise OSError(
            f"cannot write the dataset cache {path}: {error.strerror or error}. "
            f"Free some space, or point VPKIT_CACHE (now {os.environ.get('VPKIT_CACHE', 'not set')}) at another folder"
        ) from error
    if limit := os.environ.get("VPKIT_CACHE_LIMIT"):
        prune(parse_size(limit), keep=path)
    found = _read(path, source, size)
    assert found is not None, f"{path} was written and cannot be read"
    return found, None


def cache_files() -> list[Path]:
    """The files of decoded images, the one that was used longest ago first."""
    return sorted((cache_folder() / "datasets").glob("*.npy"), key=lambda path: path.stat().st_mtime)


def prune(limit: int, keep: Path | None = None) -> list[Path]:
    """Remove decoded images, those used longest ago first, until at most `limit` bytes are left; what was removed.

    They are decoded again when they are asked for. A running program keeps what it has open.
    """
    files = cache_files()
    total, removed = sum(path.stat().st_size for path in files), []
    for path in files:
        if total <= limit:
            break
        if path == keep:
            continue
        size = path.stat().st_size
        with suppress(OSError):  # in use, on a system that does not let it go
            path.unlink()
            path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
            total -= size
            removed.append(path)
    return removed


def parse_size(text: str) -> int:
    """Bytes of "500MB", "20 GB" or "1.5TB" (powers of 1000), or of a plain number.

    Raises:
        ValueError: anything else.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)B?\s*", text, re.IGNORECASE)
    if found is None:
        raise ValueError(f"size {text!r}: expected a number of bytes, such as 500MB or 20GB")
    return int(float(found[1]) * 1000 ** " kmgt".index(found[2].lower() or " "))


def _file(name: str, source: Source, size: int) -> Path:
    """Where the decoded images belong: the name holds a digest of everything they depend on."""
    labels = hashlib.sha256(np.ascontiguousarray(source.labels).tobytes()).hexdigest()
    how = [repr(size)] if isinstance(size, Resize) and size.rule != "squash" else []
    key = json.dumps([_FORMAT, name, int(size), source.fingerprint, labels, source.class_names, *how])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    safe_name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)[-80:]
    return cache_folder() / "datasets" / f"{safe_name}-{int(size)}px-{digest}.npy"


def _read(path: Path, source: Source, size: int) -> Tensor | None:
    shape = (len(source.labels), 3, int(size), int(size))
    try:
        array = np.load(path, mmap_mode="c" if len(source.labels) else None)
    except (OSError, ValueError, EOFError):  # not there, not numpy's, or cut short
        return None
    if array.shape != shape or array.dtype != np.uint8:
        return None
    with suppress(OSError):  # a cache that is only read
        os.utime(path)  # when it was used last: `prune` goes by it
    images = torch.from_numpy(array)
    setattr(images, _MAPPED, array.base)
    return images


def forget_pages(images: Tensor) -> None:
    """Take what was read of a mapped set out of this process's memory; the file's cache in the system stays."""
    mapped = getattr(images, _MAPPED, None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _write(part: Path, source: Source, size: int) -> None:
    """One image after the other, not through a map: a full disk is an error then and not the end of the process."""
    count, failed = len(source.labels), []
    with part.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, int(size), int(size))}
        np.lib.format.write_array_header_1_0(file, header)
        for image in tqdm(
            _decoded(source, size), total=count, desc="decoding", unit="image", leave=False, disable=None
        ):
            if isinstance(image, ValueError):
                failed.append(str(image))
            else:
                file.write(np.ascontiguousarray(image.transpose(2, 0, 1)).tobytes())
    if failed:
        raise ValueError(f"{len(failed)} of {count} images cannot be decoded:\n" + "\n".join(failed[:10]))


def _decoded(source: Source, size: int) -> Iterator[np.ndarray | ValueError]:
    """The images in order, or what is wrong with one; of files as many at once as there are cores, a few ahead."""

    def one(i: int) -> np.ndarray | ValueError:
        try:
            return source.decode(i, size)
        except ValueError as error:
            return error

    count = len(source.labels)
    if not source.paths:  # what is drawn or lies in arrays may not be shared between threads
        yield from map(one, range(count))
        return
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:  # Pillow decodes without holding Python's lock
        waiting: deque[Future] = deque()
        for i in range(count):
            waiting.append(pool.submit(one, i))
            if len(waiting) > 4 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
