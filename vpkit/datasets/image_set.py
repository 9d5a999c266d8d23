"""A labelled set of images held as one uint8 tensor."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vpkit.datasets.batches import Batches, resized
from vpkit.datasets.sampling import few_shot_positions
from vpkit.datasets.source import fitted
from vpkit.devices import free_memory


@dataclass(frozen=True)
class ImageSet:
    """Images, labels and class names of one split.

    A part of a set, and a set at another size, hold the images of the whole one and say which and how large: nothing
    is copied, and `batches` resizes what it draws. `images` is a copy then, so ask a small part for it.

    Args:
        stored: (N, 3, h, w) uint8, on any device; N and the side are those of `rows` and `side`, if given.
        labels: (N,) int64, values 0..T-1, on the device that batches go to.
        class_names: the T names; a subset of the images keeps all of them.
        name, split: where the images come from, for titles and result files.
        device: where batches go, if that is not where the images are (see `to`).
        rows: (N,) int64, which of the stored images these are, on the same device; None: all.
        side: images are resized to `side` x `side`; None: as stored.
        paths: of the stored images, if they are files.
        rule: how the split came about, for result files.

    Raises:
        ValueError: shapes, dtypes or label values that do not fit together.

    Explained in chapter 1.
    """

    stored: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    name: str = ""
    split: str = ""
    device: torch.device | None = None
    rows: Tensor | None = None
    side: int | None = None
    paths: tuple[Path, ...] = ()
    rule: str = ""

    def __post_init__(self):
        images, labels = self.stored, self.labels
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ValueError(f"images must be (N, 3, h, w) uint8, got {tuple(images.shape)} {images.dtype}")
        if labels.shape != (images.shape[:1] if self.rows is None else self.rows.shape) or labels.dtype != torch.int64:
            raise ValueError(f"labels must be ({len(images)},) int64, got {tuple(labels.shape)} {labels.dtype}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.class_names):
            raise ValueError(
                f"labels run from {int(labels.min())} to {int(labels.max())}, "
                f"but there are {len(self.class_names)} class names: expected 0..{len(self.class_names) - 1}"
            )

    @classmethod
    def from_dataset(
        cls, dataset: Any, class_names: Sequence[str] | None = None, size: int | None = None, name: str = ""
    ) -> "ImageSet":
        """A torch `Dataset` of `(image, label)` pairs, held in memory.

        Args:
            dataset: images are PIL images, or tensors (3, h, w) or (1, h, w), uint8 or floats in [0, 1].
            class_names: by default the dataset's own `classes`.
            size: PIL images are resized to `size` x `size`; needed where they are not all square and alike.
            name: for titles and result files.

        Raises:
            ValueError: no class names, images of another kind or of several sizes, labels out of range.
        """
        names = getattr(dataset, "classes", None) if class_names is None else class_names
        if names is None:
            raise ValueError(f"{type(dataset).__name__} has no `classes`: give class_names=")
        pairs = [dataset[i] for i in range(len(dataset))]
        images = [_as_bytes(image, size) for image, _ in pairs]
        if len(sizes := {tuple(image.shape) for image in images}) > 1:
            raise ValueError(f"images of {len(sizes)} shapes, such as {sorted(sizes)[:3]}: give size= for PIL images")
        labels = torch.tensor([int(label) for _, label in pairs], dtype=torch.int64)
        return cls(torch.stack(images), labels, tuple(map(str, names)), name or type(dataset).__name__)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index) -> "ImageSet":
        """The images at `index` (slice, boolean mask or integer tensor) as an `ImageSet`; they are not copied."""
        rows = torch.arange(len(self), device=self.stored.device) if self.rows is None else self.rows
        if isinstance(index, Tensor):  # a large set's images stay in the machine's memory while its labels do not
            return replace(self, rows=rows[index.to(rows.device)], labels=self.labels[index.to(self.labels.device)])
        return replace(self, rows=rows[index], labels=self.labels[index])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, 3, h, w)."""
        height, width = self.stored.shape[2:]
        return len(self), 3, self.side or height, self.side or width

    @property
    def files(self) -> tuple[Path, ...]:
        """The N files of these images, in their order; () if they are none."""
        if self.rows is None or not self.paths:
            return self.paths
        return tuple(self.paths[row] for row in self.rows.tolist())

    @property
    def images(self) -> Tensor:
        """(N, 3, h, w) uint8, where they are stored; a copy, if this is a part or another size of that."""
        images = self.stored if self.rows is None else self.stored[self.rows]
        if self.side is None:
            return images
        return torch.cat([resized(part, self.side) for part in images.split(256)])  # a float copy of all may not fit

    def to(self, device) -> "ImageSet":
        """The same set for another device. It moves there whole: no loader, no copies per step.

        The images of a set that would take more than half of a GPU's free memory stay where they are, and its batches
        are moved one by one from pinned memory.
        """
        device = torch.device(device)
        labels, free = self.labels.to(device), free_memory(device)
        if device == self.stored.device or (free is not None and self._bytes > 0.5 * free):
            return replace(self, labels=labels, device=device)
        stored = self.stored if self.rows is None else self.stored[self.rows]
        return replace(self, stored=stored.to(device), labels=labels, device=device, rows=None, paths=self.files)

    @property
    def _bytes(self) -> int:
        return len(self) * self.stored[0].numel() if len(self) else 0

    def resized(self, size: int) -> "ImageSet":
        """The same images at `size` x `size`, resized when they are drawn: bilinear, anti-aliased, rounded to uint8."""
        if self.shape[2:] == (size, size):
            return self
        return replace(self, side=None if self.stored.shape[2:] == (size, size) else size)

    def select_classes(self, *class_names: str) -> "ImageSet":
        """The images of the named classes, relabelled 0, 1, ... in the order given.

        Raises:
            ValueError: a name that is not a class of this set; the message lists the classes.
        """
        unknown = [name for name in class_names if name not in self.class_names]
        if unknown or not class_names:
            raise ValueError(f"no class {', '.join(unknown) or '(none named)'}: expected {', '.join(self.class_names)}")
        return self._of_classes([self.class_names.index(name) for name in class_names])

    def _of_classes(self, classes: Sequence[int]) -> "ImageSet":
        relabelled = torch.full((len(self.class_names),), -1, device=self.labels.device)
        relabelled[torch.tensor(classes, device=self.labels.device)] = torch.arange(
            len(classes), device=self.labels.device
        )
        labels = relabelled[self.labels]
        kept = labels >= 0
        return replace(self[kept], labels=labels[kept], class_names=tuple(self.class_names[k] for k in classes))

    def few_shot(self, shots: int, seed: int = 0) -> "ImageSet":
        """Exactly `shots` images of every class, drawn as CoOp draws them.

        Called on a training split, so disjoint from validation and test.

        Raises:
            ValueError: shots below 1, or more than the smallest class has.
        """
        return self[torch.tensor(few_shot_positions(self.labels.cpu().numpy(), shots, seed))]

    def base_new_split(self) -> tuple["ImageSet", "ImageSet"]:
        """The first half of the classes (rounded up) and the rest, each relabelled from 0 (CoCoOp's protocol).

        Raises:
            ValueError: fewer than two classes.
        """
        if len(self.class_names) < 2:
            raise ValueError(f"{len(self.class_names)} class cannot be split into base and new: expected at least two")
        middle, count = -(-len(self.class_names) // 2), len(self.class_names)
        return self._of_classes(range(middle)), self._of_classes(range(middle, count))

    def batches(
        self, batch_size: int | None = None, shuffle: bool = False, generator: torch.Generator | None = None
    ) -> Batches:
        """Batches of at most `batch_size` images, the last one may be smaller; see `Batches`."""
        return Batches(
            self.stored,
            self.labels,
            self.class_names,
            batch_size,
            shuffle,
            generator,
            self.device,
            self.rows,
            self.side,
        )


def _as_bytes(image, size: int | None) -> Tensor:
    """One image as (3, h, w) uint8."""
    if isinstance(image, Image.Image):
        side = image.width if size is None else size
        if size is None and image.width != image.height:
            raise ValueError(f"an image is {image.width} x {image.height} px: give size=, images are square here")
        return torch.from_numpy(np.array(fitted(image, side))).permute(2, 0, 1)
    if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] not in (1, 3):
        found = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"an image is {found}: expected a PIL image, or a tensor (3, h, w) or (1, h, w)")
    if image.is_floating_point():
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"an image runs from {low:g} to {high:g}: expected [0, 1]; leave Normalize out")
        image = (255 * image).round()
    return image.expand(3, -1, -1).to(torch.uint8)
