"""Pixel prompts: what is learned in the image itself. VP (Bahng et al. 2022) and ILM-VP (Chen et al. 2023).

Every prompt is a module from (B, 3, h, h) images in [0, 1] to the image the frozen model is given, has its
learned values in ``pixels`` (only those that show: nothing under a mask counts as a parameter) and returns its
picture from `picture()`. Explained in chapter 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class PadPrompt(nn.Module):
    """VP's frame of `width` pixels added onto the full image: x + scale * v (Bahng et al., Sec. 3.2).

    Args:
        image_size: side H of the square images.
        width: width p of the frame; 2 * 3 * p * (2H - 2p) parameters, drawn from N(0, 1).
        scale: one value or one per channel. `scale=model.std` adds v *after* the model's normalisation, as VP
            does, because (x + std * v - mean) / std = (x - mean) / std + v; so learning rates keep their meaning.
        start: "normal" draws v from N(0, 1) (VP), "zero" starts from nothing (ILM-VP's released code on CLIP).

    Raises:
        ValueError: an unknown start, a frame that is wider than half the image, or images of another size.
    """

    position: Tensor
    scale: Tensor

    def __init__(
        self, image_size: int, width: int, scale: float | Sequence[float] | Tensor = 1.0, start: str = "normal"
    ):
        super().__init__()
        _check_start(start)
        if not 1 <= width <= image_size / 2:
            raise ValueError(f"width={width}: a frame in a {image_size} px image has a width of 1..{image_size // 2}")
        self.image_size, self.width = image_size, width
        inside = torch.zeros(image_size, image_size, dtype=torch.bool)
        inside[width : image_size - width, width : image_size - width] = True
        self.register_buffer("position", torch.where(~inside.flatten())[0], persistent=False)
        self.register_buffer("scale", _per_channel(scale), persistent=False)
        drawn = torch.randn(3, len(self.position))  # in any case, so that what is drawn next does not depend on it
        self.pixels = nn.Parameter(drawn if start == "normal" else torch.zeros_like(drawn))

    def picture(self) -> Tensor:
        """What is added to every image, in pixel units: (3, H, H), zero inside the frame."""
        return _placed(self.scale * self.pixels, self.position, self.image_size)

    def forward(self, images: Tensor) -> Tensor:
        _check_size(images, self.image_size)
        return images + self.picture()


class PatchPrompt(nn.Module):
    """VP's square patch of `size` pixels added to the image, at the top left or at a random place.

    A random place is drawn anew for every batch, at test time too (as in the released code), from torch's CPU
    generator. `size=1` is the single-pixel prompt of VP's Fig. 7.

    Args:
        image_size: side H of the square images.
        size: side p of the patch, 1..H; 3 * p * p parameters, drawn from N(0, 1).
        where: "fixed" (top left corner) or "random".
        scale, start: as in `PadPrompt`.

    Raises:
        ValueError: a patch larger than the image, an unknown `where` or `start`, or images of another size.
    """

    scale: Tensor

    def __init__(
        self,
        image_size: int,
        size: int,
        where: str = "fixed",
        scale: float | Sequence[float] | Tensor = 1.0,
        start: str = "normal",
    ):
        super().__init__()
        _check_start(start)
        if not 1 <= size <= image_size:
            raise ValueError(f"size={size}: a patch on a {image_size} px image has a side of 1..{image_size}")
        if where not in ("fixed", "random"):
            raise ValueError(f"where={where!r}: expected 'fixed' or 'random'")
        self.image_size, self.size, self.where = image_size, size, where
        self.register_buffer("scale", _per_channel(scale)[..., None], persistent=False)
        drawn = torch.randn(3, size, size)
        self.pixels = nn.Parameter(drawn if start == "normal" else torch.zeros_like(drawn))

    def picture(self) -> Tensor:
        """What is added to an image, in pixel units: (3, H, H), zero outside the patch."""
        room = self.image_size - self.size
        top, left = torch.randint(room + 1, (2,)).tolist() if self.where == "random" else (0, 0)
        return pad(self.scale * self.pixels, (left, room - left, top, room - top))

    def forward(self, images: Tensor) -> Tensor:
        _check_size(images, self.image_size)
        return images + self.picture()


def vp_prompt(kind: str, image_size: int, size: int, **options) -> PadPrompt | PatchPrompt:
    """One of VP's three templates (Bahng et al. 2022, Fig. 6) by its name.

    Args:
        kind: "padding", "fixed patch" or "random patch".
        image_size: side of the square images.
        size: p, the width of the frame or the side of the patch.
        options: `scale` and `start`, as `PadPrompt` has them.

    Raises:
        ValueError: an unknown kind, and what the prompts raise.
    """
    if kind == "padding":
        return PadPrompt(image_size, size, **options)
    if kind not in ("fixed patch", "random patch"):
        raise ValueError(f"kind={kind!r}: expected 'padding', 'fixed patch' or 'random patch'")
    return PatchPrompt(image_size, size, kind.removesuffix(" patch"), **options)


def _check_start(start: str) -> None:
    if start not in ("normal", "zero"):
        raise ValueError(f"start={start!r}: expected 'normal' or 'zero'")


class ExpandPrompt(nn.Module):
    """ILM-VP's border program: the image in the middle of a canvas, learned pixels around it (Chen et al., Eq. 1).

    The border is bounded to [0, 1] and filled in before normalisation. Nothing covers the image. An odd
    remainder goes to the left and top, as in the released code.

    Args:
        image_size: side r of the square images.
        canvas_size: side of the result; 3 * (canvas_size^2 - r^2) parameters.
        start: "grey" passes a zero program through a sigmoid, a border of 0.5 (the released code); "zero" starts
            from true zero padding (the paper's h(x, 0)), clamped to [0, 1], gradients passing the clamp.
        free: (r, r) bool, pixels of the image that are prompt too; the images are 0 there (ILM-VP's ABIDE).

    Raises:
        ValueError: an image larger than the canvas, an unknown `start`, or images or `free` of another size.
    """

    position: Tensor

    def __init__(self, image_size: int, canvas_size: int, start: str = "grey", free: Tensor | None = None):
        super().__init__()
        if not 1 <= image_size <= canvas_size:
            raise ValueError(f"image_size={image_size}: expected 1..{canvas_size}, the image must fit its canvas")
        if start not in ("grey", "zero"):
            raise ValueError(f"start={start!r}: expected 'grey' or 'zero'")
        self.image_size, self.canvas_size, self.start = image_size, canvas_size, start
        right = (canvas_size - image_size) // 2
        left = canvas_size - image_size - right
        self.padding = (left, right, left, right)
        inside = torch.ones(image_size, image_size, dtype=torch.bool)
        if free is not None:
            free = torch.as_tensor(free)
            if free.shape != inside.shape or free.dtype != torch.bool:
                raise ValueError(f"free is {tuple(free.shape)} {free.dtype}: expected {tuple(inside.shape)} bool")
            inside &= ~free
        inside = pad(inside, self.padding)
        self.register_buffer("position", torch.where(~inside.flatten())[0], persistent=False)
        self.pixels = nn.Parameter(torch.zeros(3, len(self.position)))

    def picture(self) -> Tensor:
        """The border: (3, canvas, canvas) in [0, 1], zero where the image goes."""
        if self.start == "grey":
            border = self.pixels.sigmoid()
        else:  # the value of a clamp, the gradient of the identity: a pixel at a bound can come back
            border = self.pixels + (self.pixels.clamp(0, 1) - self.pixels).detach()
        return _placed(border, self.position, self.canvas_size)

    def forward(self, images: Tensor) -> Tensor:
        _check_size(images, self.image_size)
        return pad(images, self.padding) + self.picture()


def _placed(values: Tensor, position: Tensor, size: int) -> Tensor:
    """(3, P) values at P flat positions of an otherwise zero (3, size, size) picture."""
    picture = values.new_zeros(3, size * size)
    return picture.index_copy(1, position, values).view(3, size, size)


def _per_channel(scale) -> Tensor:
    return torch.as_tensor(scale, dtype=torch.float32).detach().cpu().expand(3)[:, None].clone()


def _check_size(images: Tensor, size: int) -> None:
    if images.shape[-2:] != (size, size):
        raise ValueError(
            f"images are {images.shape[-2]} x {images.shape[-1]} px, this prompt was made for {size} x {size}: "
            f"load them with size={size} or make the prompt for their size"
        )
