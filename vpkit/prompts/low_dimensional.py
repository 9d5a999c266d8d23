"""Prompts of few numbers, for those who cannot follow gradients; and, at the other end, one shaped by each image.

Each adds its picture to the whole image, (B, 3, H, H) in [0, 1].
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vpkit.prompts.pixels import _check_size

__all__ = ["CoarsePrompt", "CosinePrompt", "LowRankPrompt", "MaskedPrompt"]


class _Added(nn.Module):
    """x + picture. `of`: how many of what there are along a side, 1..H."""

    def __init__(self, image_size: int, scale: float, **of: int):
        super().__init__()
        for name, count in of.items():
            if not 1 <= count <= image_size:
                raise ValueError(f"{name}={count}: expected 1..{image_size}, the side of the images")
        self.image_size, self.scale = image_size, scale

    def picture(self) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        _check_size(images, self.image_size)
        return images + self.picture()


class LowRankPrompt(_Added):
    """LoR-VP's prompt, a product of two thin matrices for each channel: 6 * rank * H numbers.

    Args:
        image_size: side H of the square images.
        rank: of each channel, 1..H.
        scale: of the picture, in pixel units.

    Raises:
        ValueError: an impossible rank, or images of another size.

    Source: Jin et al. 2025 (LoR-VP). That one factor starts at zero and the other is drawn, as in LoRA, is our choice.
    """

    def __init__(self, image_size: int, rank: int = 4, scale: float = 1.0):
        super().__init__(image_size, scale, rank=rank)
        self.left = nn.Parameter(torch.zeros(3, image_size, rank))
        self.right = nn.Parameter(torch.randn(3, rank, image_size) / rank**0.5)

    def picture(self) -> Tensor:
        """(3, H, H), in pixel units."""
        return self.scale * self.left @ self.right


class CoarsePrompt(_Added):
    """A grid of few large pixels, enlarged bilinearly to the image: 3 * cells^2 numbers, zero at the start.

    Args:
        image_size: side H of the square images.
        cells: along a side, 1..H.
        scale: of the picture, in pixel units.

    Raises:
        ValueError: an impossible number of cells, or images of another size.
    """

    def __init__(self, image_size: int, cells: int = 6, scale: float = 1.0):
        super().__init__(image_size, scale, cells=cells)
        self.grid = nn.Parameter(torch.zeros(3, cells, cells))

    def picture(self) -> Tensor:
        """(3, H, H), in pixel units."""
        side = (self.image_size, self.image_size)
        return self.scale * interpolate(self.grid[None], side, mode="bilinear", align_corners=False)[0]


class CosinePrompt(_Added):
    """The lowest waves of a discrete cosine transform: 3 * waves^2 coefficients, zero at the start.

    Args:
        image_size: side H of the square images.
        waves: along a side, 1..H; the first is a constant.
        scale: a coefficient of 1 is a wave with this amplitude, in pixel units.

    Raises:
        ValueError: an impossible number of waves, or images of another size.
    """

    basis: Tensor

    def __init__(self, image_size: int, waves: int = 6, scale: float = 1.0):
        super().__init__(image_size, scale, waves=waves)
        place = (torch.arange(image_size) + 0.5) / image_size
        self.register_buffer("basis", torch.cos(torch.pi * torch.arange(waves)[:, None] * place), persistent=False)
        self.coefficients = nn.Parameter(torch.zeros(3, waves, waves))

    def picture(self) -> Tensor:
        """(3, H, H), in pixel units."""
        return self.scale * self.basis.T @ self.coefficients @ self.basis


class MaskedPrompt(nn.Module):
    """SMM: one pattern for all images, through a mask that a small network makes for each: x + pattern * mask(x).

    Args:
        image_size: side H of the square images, at least 8.
        channels: of the mask network's first layer; it has five layers of 3 x 3 and halves the side three times.
        scale: of the pattern, in pixel units.

    Raises:
        ValueError: images of another size, or too small ones.

    Source: Cai et al. 2024 (SMM): pattern, mask network, masks enlarged without interpolation. Widths are ours.
    """

    def __init__(self, image_size: int, channels: int = 8, scale: float = 1.0):
        super().__init__()
        if image_size < 8:
            raise ValueError(f"image_size={image_size}: expected at least 8, the mask is made at an eighth of the side")
        self.image_size, self.scale = image_size, scale
        self.pattern = nn.Parameter(torch.zeros(3, image_size, image_size))
        widths, layers = [3, channels, 2 * channels, 4 * channels, 8 * channels], []
        for number, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if number < 3 else []
        self.mask = nn.Sequential(*layers, nn.Conv2d(widths[-1], 3, 3, padding=1))

    def masks(self, images: Tensor) -> Tensor:
        """(B, 3, H, H): how much of the pattern each pixel of each image gets."""
        side = (self.image_size, self.image_size)
        return interpolate(self.mask(images), side, mode="nearest")

    def picture(self) -> Tensor:
        """The pattern alone, (3, H, H), in pixel units."""
        return self.scale * self.pattern

    def forward(self, images: Tensor) -> Tensor:
        _check_size(images, self.image_size)
        return images + self.picture() * self.masks(images)
