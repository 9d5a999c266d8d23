"""A data set larger than a memory budget is streamed: written, trained on and tested in little resident memory."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
SCRIPT = """
import os, sys
import numpy as np
import torch
import vpkit
from vpkit.datasets.cache import cached_images
from vpkit.datasets.source import Source

torch.set_num_threads(1)
count, side = int(sys.argv[1]), 224
noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
source = Source(np.arange(count) % 5, tuple("abcde"), lambda i, size: np.roll(noise, i, 0), "rolled noise")

def peak():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024

before = peak()
images, _ = cached_images("rolled", source, side)
labels = torch.arange(count) % 5
data = vpkit.ImageSet(images, labels, tuple("abcde"))
network = torch.nn.Sequential(torch.nn.AvgPool2d(32), torch.nn.Flatten(), torch.nn.Linear(147, 8))
model = vpkit.models.FrozenModel(network, list("stuvwxyz"), image_size=side)
classifier = vpkit.PromptedClassifier(vpkit.prompts.PadPrompt(side, 8), model, vpkit.mappings.identity_mapping(5))
optimizer = torch.optim.SGD(classifier.prompt.parameters(), lr=0.1)
fitted = vpkit.train_epoch(classifier, data.batches(16, shuffle=True), optimizer)
tested = vpkit.evaluate(classifier, data.batches(16))
# a part of the classes, at another size, is neither copied nor resized as a whole
part = data.select_classes("d", "b", "a", "c")[: -1].resized(112)
seen = [(x.shape, len(y)) for x, y in part.batches(16)]
assert {tuple(shape[1:]) for shape, _ in seen} == {(3, 112, 112)}
assert sum(n for _, n in seen) == len(part) == (labels != 4).sum() - 1
# what was read twice, in another order and with pages given back in between, is still what was written
expected = np.roll(noise, count // 2, 0).transpose(2, 0, 1)
assert np.array_equal(images[count // 2].numpy(), expected)
assert tested.n == count
print(before, peak(), images.nbytes // 2**20)
"""


@pytest.mark.parametrize("megabytes", [1200])  # 6000, against a budget of 3 GB, by `make stress`
def test_a_large_set_is_streamed(megabytes, tmp_path, monkeypatch, request):
    megabytes = request.config.getoption("--megabytes") or megabytes
    monkeypatch.setenv("VPKIT_CACHE", str(tmp_path))
    count = megabytes * 2**20 // (3 * 224 * 224)
    run = [sys.executable, "-c", SCRIPT, str(count)]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    before, peak, size = map(int, said.split())
    assert size > 0.99 * megabytes
    # a quarter of a gigabyte of pages and their neighbours, and a batch at work; not a hole in the heap for every batch
    assert peak < before + 1000
    next(tmp_path.rglob("*.npy")).unlink()
