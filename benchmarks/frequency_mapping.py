"""Milliseconds for one frequency mapping, ours and a scan of the whole table for every target class."""

import platform
import statistics
from datetime import date
from time import perf_counter

import torch

from vpkit.mappings import frequency_mapping

SIZES = ((1000, 66), (1000, 102), (1000, 397), (32_157, 397))
REPEATS = 5


def scan(counts):
    left, index = counts.double(), [0] * counts.shape[1]
    for _ in index:
        source, target = divmod(int(left.argmax()), left.shape[1])
        index[target] = source
        left[source], left[:, target] = -1, -1
    return index


def measure(sizes=SIZES, repeats: int = REPEATS) -> list[dict]:
    """Medians and ranges in milliseconds, ours and the scan interleaved."""
    rows = []
    for num_source, num_target in sizes:
        # 40 images a class, most of them on a few favourite source classes, as frozen models answer
        generator = torch.Generator().manual_seed(0)
        favourites = torch.randint(num_source, (num_target, 6), generator=generator)
        pick = torch.randint(6, (num_target, 40), generator=generator)
        cells = favourites.gather(1, pick) * num_target + torch.arange(num_target)[:, None]
        counts = torch.bincount(cells.flatten(), minlength=num_source * num_target).view(num_source, num_target)
        times = {"vpkit": [], "scan": []}
        for _ in range(repeats):
            for name, assign in (("vpkit", frequency_mapping), ("scan", scan)):
                started = perf_counter()
                found = assign(counts)
                times[name].append(1000 * (perf_counter() - started))
        if found != frequency_mapping(counts).index.tolist():
            raise AssertionError("the two assignments differ")
        summaries = {name: {"median": statistics.median(t), "low": min(t), "high": max(t)} for name, t in times.items()}
        rows.append({"sources": num_source, "targets": num_target} | summaries)
    return rows


def show(rows: list[dict]) -> None:
    print(f"{'sources x targets':>18} {'vpkit, ms':>24} {'scan, ms':>28}")
    for row in rows:
        shown = [f"{row[k]['median']:9.1f} ({row[k]['low']:.1f} to {row[k]['high']:.1f})" for k in ("vpkit", "scan")]
        print(f"{row['sources']:>9} x {row['targets']:<6} {shown[0]:>24} {shown[1]:>28}")


if __name__ == "__main__":
    print(f"{date.today()}  {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    show(measure())
