"""Batches of a split, whatever form its inputs have."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vpkit.datasets.cache import forget_pages
from vpkit.interfaces import LabelledBatches

__all__ = ["Batches", "labelled"]

_MOST_MAPPED = 256 * 2**20  # bytes of a mapped set that are read before its pages are given back


class Batches:
    """Iterable of `(inputs, labels)`, at most `batch_size` of them at a time; each pass draws a new order.

    Args:
        inputs: N rows: a tensor (N, ...), or what has a `device` and gives a batch when it is indexed by rows, such as
            `PatchEmbeddings`. uint8 rows are images (N, 3, h, w), and their batches floats in [0, 1].
        labels: (N,) int64.
        class_names: of the T classes.
        batch_size: the last batch may be smaller. None: 64 on the CPU, 512 elsewhere, for passes without gradients.
        shuffle: a new order each pass, drawn on the CPU, so that one seed gives one order on every device.
        generator: of the order; torch's own by default.
        device: where batches go, if that is not where the inputs are.
        rows: (N,) int64, which of the inputs are meant, where they are; None: all.
        side: images are resized to it, on that device; None: as they are.

    Raises:
        ValueError: a batch_size below 1.
    """

    def __init__(
        self,
        inputs: Any,
        labels: Tensor,
        class_names: Sequence[str],
        batch_size: int | None = None,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        device: torch.device | None = None,
        rows: Tensor | None = None,
        side: int | None = None,
    ):
        if batch_size is None:
            batch_size = 64 if (device or labels.device).type == "cpu" else 512
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        self.inputs, self.labels, self.class_names = inputs, labels, class_names
        self.batch_size, self.shuffle, self.generator, self.device = batch_size, shuffle, generator, device
        self.rows, self.side = rows, side

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        labels, read = self.labels, 0
        if len(labels) == 0:  # split() would yield one empty batch
            return
        order = torch.randperm(len(labels), generator=self.generator) if self.shuffle else torch.arange(len(labels))
        # Inputs may be in the machine's memory while labels are on the device: each is indexed from where it is.
        of_labels = order.to(labels.device)
        of_inputs = order.to(self.inputs.device)
        for chosen, named in zip(of_inputs.split(self.batch_size), of_labels.split(self.batch_size), strict=True):
            x, y = self.inputs[chosen if self.rows is None else self.rows[chosen]], labels[named]
            if not isinstance(x, Tensor):
                yield x, y
                continue
            read += x.nbytes
            if read > _MOST_MAPPED:  # a set may be larger than memory
                forget_pages(self.inputs)
                read = 0
            if self.device is not None:
                x, y = (_moved(part, self.device) for part in (x, y))
            if self.side is not None:
                x = resized(x, self.side)
            yield x.float().div_(255) if x.dtype == torch.uint8 else x, y


class _Labelled:
    """A loader with the names of its classes, its batches on a device and as floats in [0, 1]; see `labelled`."""

    def __init__(self, loader: Iterable, class_names: Sequence[str], device: torch.device | str | None):
        self.loader, self.class_names, self.device = loader, tuple(class_names), device
        self.generator = getattr(loader, "generator", None)  # of the order; a checkpoint keeps its state

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        for inputs, labels in self.loader:
            labels = torch.as_tensor(labels).long()
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.class_names):
                raise ValueError(
                    f"a batch has the labels {sorted(set(labels.tolist()))}, but there are {len(self.class_names)} "
                    f"class names: expected 0..{len(self.class_names) - 1}"
                )
            inputs, labels = inputs.to(self.device), labels.to(self.device)
            yield inputs.float().div(255) if inputs.dtype == torch.uint8 else inputs, labels


def labelled(loader: Iterable, class_names: Sequence[str], device: torch.device | str | None = None) -> LabelledBatches:
    """Any iterable of `(images, labels)`, such as a `DataLoader`, as batches that `fit`, `evaluate` and mappings take.

    Args:
        loader: gives images (B, 3, h, w), uint8 or floats in [0, 1] (a frozen model normalises inside: leave
            `Normalize` out of your transforms), and labels (B,); can be passed over again and again, and has a length.
        class_names: of the T classes, in label order.
        device: where the batches go.

    Raises:
        ValueError: while it is read, labels that are not 0..T-1.
    """
    return _Labelled(loader, class_names, device)


def resized(images: Tensor, side: int) -> Tensor:
    """(B, 3, h, w) uint8 to (B, 3, side, side) uint8: bilinear with anti-aliasing."""
    large = interpolate(images.float(), (side, side), mode="bilinear", antialias=True)
    return large.round().clamp(0, 255).byte()


def _moved(part: Tensor, device: torch.device) -> Tensor:
    """From pinned memory, so that the copy runs beside the GPU's work; as bytes, a quarter of the floats."""
    if part.device.type == "cpu" and device.type not in ("cpu", "mps"):
        part = part.pin_memory()
    return part.to(device, non_blocking=True)
