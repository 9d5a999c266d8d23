"""What the chapters find at their default parameters, against the committed table.

`make notebooks` runs the chapters, which leave their results in _build/defaults, and then this. After a change that is
meant to change numbers, `python tests/integration/defaults/test_default_runs.py` writes the table anew.
"""

import csv
import json
import math
import sys
from pathlib import Path

import pytest

TABLE = Path(__file__).with_name("metrics.csv")
FOUND = Path(__file__).resolve().parents[3] / "_build" / "defaults"
COLUMNS = ("chapter", "method", "metric", "expected", "tolerance")


def found_metrics(folder: Path = FOUND) -> dict[tuple[str, str, str], tuple[float, float]]:
    """(chapter, method, metric) to value and tolerance: other processors round otherwise, and training carries that on.

    An accuracy of a on n images may differ by two points and three standard errors, any other metric by a tenth.
    """
    found = {}
    for path in sorted(folder.glob("*/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        metrics = record["metrics"]
        for metric, value in metrics.items():
            exact = metric in ("n_test", "parameters")
            share = not exact and 0 <= value <= 1
            n = metrics.get("n_test", 264)  # of new classes only: as many as chapters 5 and 6 test
            error = 3 * math.sqrt(value * (1 - value) / n) + 0.02 if share else 0.1 * abs(value)
            found[path.parent.name, record["method"], metric] = value, 0.0 if exact else error
    return found


def expected_metrics() -> list[tuple]:
    if not TABLE.exists():
        return []
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        ((row["chapter"], row["method"], row["metric"]), float(row["expected"]), float(row["tolerance"]))
        for row in rows
    ]


@pytest.mark.parametrize(("key", "expected", "tolerance"), expected_metrics())
def test_a_default_run_finds_what_it_found_before(key, expected, tolerance):
    assert found_metrics()[key][0] == pytest.approx(expected, abs=tolerance + 1e-9)


def test_the_table_knows_every_default_run():
    known = {key for key, *_ in expected_metrics()}
    assert known == set(found_metrics())
    assert len({(chapter, method) for chapter, method, _ in known}) > 35


if __name__ == "__main__":
    found = found_metrics(Path(sys.argv[1]) if len(sys.argv) > 1 else FOUND)
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((*key, round(value, 6), round(error, 4)) for key, (value, error) in found.items())
