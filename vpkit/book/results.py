"""The JSON file of a run, with everything needed to repeat it, and tables of such files."""

import json
import math
import numbers
import platform
import re
from collections.abc import Iterable
from importlib import metadata, resources
from pathlib import Path

import torch

from vpkit.files import write_atomically
from vpkit.training.history import History

__all__ = ["load_paper_results", "load_runs", "load_study", "provenance", "save_run"]

_FORMAT = 1


def provenance() -> dict:
    """Versions and hardware of this process."""
    names = ("vpkit", "torch", "torchvision", "open_clip_torch", "numpy")
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {"python": platform.python_version(), **versions},
        "hardware": {"gpu": gpu, "processor": _processor(), "threads": torch.get_num_threads()},
    }


def save_run(
    path: str | Path,
    *,
    method: str,
    parameters: dict,
    metrics: dict,
    history: History | None = None,
    splits: list[dict] | None = None,
) -> Path:
    """Write one run as a JSON file, whole or not at all.

    Args:
        path: file to write, ending in `.json`; its folder is made.
        method: what was run, such as "ILM".
        parameters: everything that decides the numbers, the seed included.
        metrics: final numbers, with the n behind them, such as `{"test_accuracy": 0.5, "n_test": 1000}`.
        history: per-epoch values, and the wall time of the training.
        splits: of the data that was used: name, split, n and rule of each.

    Raises:
        ValueError: a metric that is no number, NaN or infinite, or a path that does not end in `.json`.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise ValueError(f"{path}: expected a file name ending in .json")
    if strange := [f"{name} is {value!r}" for name, value in metrics.items() if not isinstance(value, numbers.Real)]:
        raise ValueError(f"metrics are not numbers: {', '.join(strange)}; expected int or float")
    metrics = {name: int(v) if isinstance(v, numbers.Integral) else float(v) for name, v in metrics.items()}
    bad = [name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)]
    if bad:
        raise ValueError(f"metrics are not finite: {', '.join(bad)}; a failed run is not a result")
    record = {
        "format": _FORMAT,
        "method": method,
        "parameters": parameters,
        "metrics": metrics,
        "history": history.rows if history else [],
        "seconds": None if history is None or history.seconds is None else round(history.seconds, 2),
        "splits": splits or [],
        **provenance(),
    }
    text = json.dumps(record, indent=1, allow_nan=False)
    return write_atomically(path, lambda part: part.write_text(text + "\n", encoding="utf-8"))


def load_runs(folder: str | Path, pattern: str = "*.json"):
    """All runs under `folder` as a pandas table: method, parameters, metrics and seconds as columns.

    A file may hold one run, or a list of runs as `vpkit.book.sweep --json` writes it; `folder` may be such a file.

    Raises:
        FileNotFoundError: no matching file.
        ValueError: a file that is not a run; the message names it.
    """
    paths = [Path(folder)] if Path(folder).is_file() else sorted(Path(folder).rglob(pattern))
    if not paths:
        raise FileNotFoundError(f"no run ({pattern}) under {folder}: run a notebook with -p results_dir {folder} first")
    return _table(run for path in paths for run in _read_runs(path))


def load_study(name: str):
    """The stored runs of a study that ships with the book, as `load_runs` gives them.

    Raises:
        FileNotFoundError: no such study; the message lists the known ones.
    """
    folder = resources.files("vpkit") / "data" / "studies"
    path = folder / f"{name}.json"
    if not path.is_file():
        known = sorted(p.name.removesuffix(".json") for p in folder.iterdir() if p.name.endswith(".json"))
        raise FileNotFoundError(f"unknown study {name!r}: expected one of {', '.join(known) or '(none is stored)'}")
    return _table(json.loads(path.read_text(encoding="utf-8")))


def load_paper_results(paper: str | None = None, table: str | None = None):
    """The papers' printed results as a pandas table, one number a row, digits as printed (percent for accuracies).

    Args:
        paper: "vp", "ilm_vp", "ilm_vp_slides", "logoprompt" or "dpt"; all by default.
        table: such as "Table 1"; all by default.

    Raises:
        ValueError: an unknown paper or table; the message lists the known ones.
    """
    import pandas as pd

    with resources.as_file(resources.files("vpkit") / "data" / "paper_results.csv") as path:
        results = pd.read_csv(path)
    for column, wanted in (("paper", paper), ("table", table)):
        if wanted is not None:
            known = list(dict.fromkeys(results[column]))
            if wanted not in known:
                raise ValueError(f"unknown {column} {wanted!r}: expected one of {', '.join(known)}")
            results = results[results[column] == wanted]
    return results.reset_index(drop=True)


def _read_runs(path: Path) -> list[dict]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        records = found if isinstance(found, list) else [found]
        if not records:
            raise ValueError("an empty list")
        for record in records:
            if record["format"] != _FORMAT:
                raise ValueError(f"format {record['format']}, this vpkit reads {_FORMAT}")
            record["method"], record["seconds"], record["hardware"]
            for name, kind in (("parameters", dict), ("metrics", dict), ("history", list)):
                if not isinstance(record[name], kind):
                    raise TypeError(f"{name} is {str(record[name])[:40]}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a run written by vpkit.book.save_run ({error}); move it away") from error
    return records


def _table(records: Iterable[dict]):
    import pandas as pd

    rows = []
    for record in records:
        extra = {"history": record["history"], "seconds": record["seconds"], "hardware": record["hardware"]}
        rows.append({"method": record["method"], **record["parameters"], **record["metrics"], **extra})
    return pd.DataFrame(rows)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()
