"""What the parts of a run ask of each other, as types: whatever has these members will do, and none is a base class."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

__all__ = ["Batch", "Classifier", "LabelledBatches", "Normalises", "PixelPrompt", "Resize", "normalised"]

# Images and labels. A classifier may take something else for images, such as `PatchEmbeddings`: so long as the batches
# yield what it takes, no loop looks at more than their device.
Batch = tuple[Any, Tensor]


class Resize(int):
    """A side in pixels that knows how an image comes to it; a plain int squashes bilinearly.

    Args:
        side: of the square result.
        rule: "squash" does not keep the aspect ratio (ILM-VP's CNNs); "crop" resizes the shorter side and cuts the
            middle out (CLIP, torchvision).
        interpolation: "bilinear" or "bicubic", both with anti-aliasing.
        enlarged: "crop" resizes the shorter side to so many sides first, such as 256 / 224.

    Raises:
        ValueError: an unknown rule or interpolation, or `enlarged` below 1.
    """

    rule: str
    interpolation: str
    enlarged: float

    def __new__(cls, side: int, rule: str = "squash", interpolation: str = "bilinear", enlarged: float = 1.0):
        if rule not in ("squash", "crop") or interpolation not in ("bilinear", "bicubic") or enlarged < 1:
            raise ValueError(
                f"Resize({side}, {rule!r}, {interpolation!r}, {enlarged}): expected 'squash' or 'crop', 'bilinear' or "
                "'bicubic', and at least 1"
            )
        made = super().__new__(cls, side)
        made.rule, made.interpolation, made.enlarged = rule, interpolation, enlarged
        return made

    def at(self, side: int) -> "Resize":
        """The same way to another side."""
        return Resize(side, self.rule, self.interpolation, self.enlarged)

    def __repr__(self) -> str:
        return f"Resize({int(self)}, {self.rule!r}, {self.interpolation!r}, {self.enlarged:g})"


class LabelledBatches(Protocol):
    """Batches of a split, such as `ImageSet.batches` gives; each pass over them starts anew."""

    @property
    def class_names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class Classifier(Protocol):
    """What can be trained: an `nn.Module` that gives its own loss."""

    def loss(self, images: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the logits (B, T) it comes from."""

    def train(self, mode: bool = True) -> object: ...

    def eval(self) -> object: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True) -> object: ...


@runtime_checkable
class PixelPrompt(Protocol):
    """A prompt of pixels: images (B, 3, h, h) in [0, 1] to prompted images."""

    def __call__(self, images: Tensor) -> Tensor: ...

    def picture(self) -> Tensor:
        """(3, H, H)."""


class Normalises(Protocol):
    """A model that scales its pixels inside."""

    mean: Tensor
    std: Tensor


def normalised(images: Tensor, model: Normalises) -> Tensor:
    """Pixels (B, 3, h, w) in [0, 1], scaled as `model` was trained: minus its mean, divided by its std."""
    return (images - model.mean[:, None, None]) / model.std[:, None, None]
