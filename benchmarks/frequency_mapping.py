"""Milliseconds for one frequency mapping, ours and a scan of the whole table for every target class."""

import platform
import statistics
from datetime import date
from time import perf_counter

import torch

from vpkit import frequency_mapping

SIZES = ((1000, 66), (1000, 102), (1000, 397), (32_157, 397))
REPEATS = 5


def scan(counts):
    left, index = counts.double(), [0] * counts.shape[1]
    for _ in index:
        source, target = divmod(int(left.argmax()), left.shape[1])
        index[target] = source
        left[source], left[:, target] = -1, -1
    return index


def main():
    print(f"{date.today()}  {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'sources x targets':>18} {'vpkit, ms':>22} {'scan, ms':>26}")
    for num_source, num_target in SIZES:
        # 40 images a class, most of them on a few favourite source classes, as frozen models answer
        generator = torch.Generator().manual_seed(0)
        favourites = torch.randint(num_source, (num_target, 6), generator=generator)
        pick = torch.randint(6, (num_target, 40), generator=generator)
        cells = favourites.gather(1, pick) * num_target + torch.arange(num_target)[:, None]
        counts = torch.bincount(cells.flatten(), minlength=num_source * num_target).view(num_source, num_target)
        times = {"ours": [], "scan": []}
        for _ in range(REPEATS):  # interleaved, so that whatever else the machine does hits both
            for name, assign in (("ours", frequency_mapping), ("scan", scan)):
                started = perf_counter()
                found = assign(counts)
                times[name].append(1000 * (perf_counter() - started))
        assert found == frequency_mapping(counts).index.tolist()
        shown = [f"{statistics.median(t):9.1f} ({min(t):.1f} to {max(t):.1f})" for t in times.values()]
        print(f"{num_source:>9} x {num_target:<6} {shown[0]:>22} {shown[1]:>26}")


if __name__ == "__main__":
    main()
