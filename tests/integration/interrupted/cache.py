"""Decode a data set into the cache of $VPKIT_CACHE; print what it holds. Killed at a random moment."""

import hashlib
from time import perf_counter, sleep

import numpy as np

from vpkit.datasets.cache import cached_images
from vpkit.datasets.source import Source


def decode(i, size):
    sleep(0.001)
    return np.full((size, size, 3), i % 256, np.uint8)


source = Source(np.arange(400) % 5, tuple("abcde"), decode, "grey images")
print("ready", flush=True)
started = perf_counter()
images, _ = cached_images("grey", source, 48)
print(perf_counter() - started)
print(hashlib.sha256(images.numpy().tobytes()).hexdigest())
