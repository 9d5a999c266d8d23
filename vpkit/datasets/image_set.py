"""A labelled set of images held as one uint8 tensor."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vpkit.datasets.batches import Batches
from vpkit.datasets.sampling import few_shot_positions


@dataclass(frozen=True)
class ImageSet:
    """Images, labels and class names of one split.

    Attributes:
        images: (N, 3, h, w) uint8, on any device.
        labels: (N,) int64, values 0..T-1.
        class_names: the T names; a subset of the images keeps all of them.
        name, split: where the images come from, for titles and result files.
        device: where batches go, if that is not where the images are (see `to`).

    Raises:
        ValueError: shapes, dtypes or label values that do not fit together.

    Explained in chapter 1.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    name: str = ""
    split: str = ""
    device: torch.device | None = None

    def __post_init__(self):
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ValueError(f"images must be (N, 3, h, w) uint8, got {tuple(images.shape)} {images.dtype}")
        if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
            raise ValueError(f"labels must be ({len(images)},) int64, got {tuple(labels.shape)} {labels.dtype}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.class_names):
            raise ValueError(
                f"labels run from {int(labels.min())} to {int(labels.max())}, "
                f"but there are {len(self.class_names)} class names: expected 0..{len(self.class_names) - 1}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index) -> "ImageSet":
        """The images at `index` (slice, boolean mask or integer tensor) as an `ImageSet`."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def to(self, device) -> "ImageSet":
        """The same set for another device. It moves there whole: no loader, no copies per step.

        A set that would take more than half of a GPU's free memory stays where it is, and its batches are moved
        one by one from pinned memory.
        """
        device = torch.device(device)
        if device.type == "cuda" and self.images.numel() > 0.5 * torch.cuda.mem_get_info(device)[0]:
            return replace(self, device=device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), device=device)

    def resized(self, size: int) -> "ImageSet":
        """The same images at `size` x `size`, bilinear with anti-aliasing, rounded back to uint8."""
        if self.images.shape[-2:] == (size, size):
            return self
        parts = [
            interpolate(part.float(), (size, size), mode="bilinear", antialias=True).round().clamp(0, 255).byte()
            for part in self.images.split(256)  # in parts: a float copy of the whole set may not fit
        ]
        return replace(self, images=torch.cat(parts))

    def select_classes(self, *class_names: str) -> "ImageSet":
        """The images of the named classes, relabelled 0, 1, ... in the order given.

        Raises:
            ValueError: a name that is not a class of this set; the message lists the classes.
        """
        unknown = [name for name in class_names if name not in self.class_names]
        if unknown or not class_names:
            raise ValueError(f"no class {', '.join(unknown) or '(none named)'}: expected {', '.join(self.class_names)}")
        relabelled = torch.full((len(self.class_names),), -1, device=self.labels.device)
        for new, name in enumerate(class_names):
            relabelled[self.class_names.index(name)] = new
        labels = relabelled[self.labels]
        kept = labels >= 0
        return replace(self, images=self.images[kept], labels=labels[kept], class_names=class_names)

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
        middle = -(-len(self.class_names) // 2)
        return self.select_classes(*self.class_names[:middle]), self.select_classes(*self.class_names[middle:])

    def batches(self, batch_size: int, shuffle: bool = False, generator: torch.Generator | None = None) -> Batches:
        """Batches of at most `batch_size` images, the last one may be smaller; see `Batches`."""
        return Batches(self.images, self.labels, self.class_names, batch_size, shuffle, generator, self.device)
