"""What the chapters find at their default parameters, against the committed table.

`make notebooks` runs the chapters, which leave their results in _build/defaults, and then this. After a change that is
meant to change numbers: python tests/defaults/test_default_runs.py writes the table anew.
"""

import csv
import json
import math
from pathlib import Path

import pytest

TABLE = Path(__file__).with_name("metrics.csv")
FOUND = Path(__file__).resolve().parents[2] / "_build" / "defaults"
COLUMNS = ("run", "metric", "expected", "tolerance")


def found_metrics() -> dict[tuple[str, str], tuple[float, float]]:
    """(run, metric) to value and tolerance: other processors round otherwise, and training carries that on.

    An accuracy of a on n images may differ by two points and three standard errors, any other metric by a tenth.
    """
    found = {}
    for path in sorted(FOUND.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        metrics = record["metrics"]
        for metric, value in metrics.items():
            exact = metric in ("n_test", "parameters", "learned_parameters")
            share = not exact and 0 <= value <= 1
            error = 3 * math.sqrt(value * (1 - value) / metrics["n_test"]) + 0.02 if share else 0.1 * abs(value)
            found[path.stem, metric] = value, 0.0 if exact else error
    return found


def expected_metrics():
    with TABLE.open(newline="", encoding="utf-8") as file:
        return [
            (row["run"], row["metric"], float(row["expected"]), float(row["tolerance"])) for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize(("run", "metric", "expected", "tolerance"), expected_metrics() if TABLE.exists() else [])
def test_a_default_run_finds_what_it_found_before(run, metric, expected, tolerance):
    assert found_metrics()[run, metric][0] == pytest.approx(expected, abs=tolerance + 1e-9)


def test_the_table_knows_every_default_run():
    assert {(run, metric) for run, metric, *_ in expected_metrics()} == set(found_metrics())
    assert len({run for run, *_ in expected_metrics()}) > 40


if __name__ == "__main__":
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((*key, round(value, 6), round(error, 4)) for key, (value, error) in found_metrics().items())
