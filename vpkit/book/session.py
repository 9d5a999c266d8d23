"""What every notebook does first: refuse misspelt parameters, seed, choose a device, set the plot style.

The only file that knows it may run inside a notebook.
"""

import ast
import ctypes
import hashlib
import json
import os
import platform
import random
import sys
from collections.abc import Iterable
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpkit.book.parameters import chapter_parameters, check_values
from vpkit.book.results import save_run
from vpkit.devices import choose_device
from vpkit.files import check_writable

__all__ = ["check_parameters", "choose_device", "keep_freed_memory", "save_table", "start"]

DECIDE_NOTHING = ("device", "results_dir", "download", "checkpoints")  # parameters that no number depends on
_INJECTED = "# Parameters\n"  # the first line of the cell that papermill injects


def start(seed: int = 0, device: str | None = None, chapter: str | None = None) -> torch.device:
    """Set up a notebook and print one line on where it runs.

    On a GPU float32 products of matrices may use TF32 (10 bits of mantissa) from then on: evaluation and the counting
    of labels, which do not run under autocast, are several times faster, and accuracies stay within 0.1 points.

    Args:
        seed: for Python, NumPy and torch.
        device: "cpu", "cuda" or "cuda:N"; None takes a GPU if there is one.
        chapter: whose parameters these are, such as "03_ilm_vp": their values are checked (`vpkit.book.parameters`).

    Returns:
        The device to put models and images on.

    Raises:
        ValueError: a parameter passed by papermill that the notebook does not have, a value that the chapter cannot
            take, an unknown device, or a GPU where there is none.
        OSError: a `results_dir` that cannot be written.

    Explained in chapter 1.
    """
    main = sys.modules.get("__main__")
    check_parameters(getattr(main, "In", []))
    if chapter is not None:
        given = vars(main) if hasattr(main, "In") else {}
        check_values(chapter, {name: given[name] for name in chapter_parameters(chapter) if name in given})
        check_writable(given.get("results_dir", ""))
        _tell(given)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (for libraries that draw from NumPy's global generator)
    torch.manual_seed(seed)
    chosen = choose_device(device)
    from vpkit.plots import set_style

    set_style()
    keep_freed_memory()
    if chosen.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as cuDNN's convolutions have it anyway
    where = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "the CPU, which the defaults are sized for"
    print(f"vpkit {metadata.version('vpkit')} on {where}, seed {seed}")
    return chosen


def _tell(given: dict) -> None:
    """What the parameters say to parts that are called without them: may they download, where do they keep states."""
    for name, value in (
        ("VPKIT_DOWNLOAD", "1" if given.get("download") else ""),
        ("VPKIT_CHECKPOINTS", str(Path(given["checkpoints"]).absolute()) if given.get("checkpoints") else ""),
    ):
        if value:
            os.environ[name] = value


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees, up to 2 GiB, for what it allocates next; True if that was possible.

    By default glibc gives every large block back to the kernel, which then has to find and clear new pages for the
    activations of the next batch. On two CPU cores keeping them made evaluation more than twice as fast and training a
    fifth faster. Does nothing on systems without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(mmap_threshold, 1 << 30) and libc.mallopt(trim_threshold, (1 << 31) - 1))


def notebook_parameters() -> dict:
    """The values of the running notebook's parameters cell, as they are now; {} outside a notebook.

    The cell is known by its last line: it assigns `results_dir`. What decides no number is left out (`device`,
    `results_dir`, `download`, `checkpoints`), and so is anything that is no longer a plain value.
    """
    main = sys.modules.get("__main__")
    cells = [names for names in map(_assigned_values, getattr(main, "In", [])) if "results_dir" in names]
    # The longest is the declaration; a cell that papermill injects may override only some.
    names = [name for name in max(cells, key=len, default=[]) if name not in DECIDE_NOTHING]
    plain = (str, int, float, bool, list, type(None))
    return {name: getattr(main, name) for name in names if isinstance(getattr(main, name, None), plain)}


def declared_values(notebook: dict) -> dict:
    """The names of a notebook's parameters cell with their values, of a notebook as nbformat or json reads it."""
    (cell,) = (cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", []))
    return _assigned_values("".join(cell["source"]))


def save_table(folder: str | Path, table, histories: dict | None = None, splits: Iterable[Any] = ()) -> list[Path]:
    """Save each row of a notebook's result table as one run, with the notebook's parameters; nothing if `folder` is "".

    Args:
        folder: where to write `<dataset>-<method>-<hash of the parameters>.json`; if "", the environment variable
            VPKIT_RESULTS may name one (the tests' own way to see what a chapter finds at its defaults).
        table: pandas table with a column `method`; the other columns are the metrics. None, in a column of dtype
            object, stands for a number that the method does not have; NaN is refused.
        histories: by method, where there are any.
        splits: each `ImageSet` that was used: how many images it has, and how it came about, is saved too.
    """
    folder = folder or os.environ.get("VPKIT_RESULTS", "")
    if not folder:
        return []
    parameters = notebook_parameters()
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:10]
    used = [{"name": s.name, "split": s.split, "n": len(s), "rule": s.rule} for s in splits]
    paths = []
    for row in table.to_dict("records"):
        method = row.pop("method")
        row = {name: value for name, value in row.items() if value is not None}
        name = f"{parameters.get('dataset', 'run')}-{method}-{digest}.json".replace(" ", "_")
        history = (histories or {}).get(method)
        run = {"method": method, "parameters": parameters, "metrics": row, "history": history, "splits": used}
        paths.append(save_run(Path(folder) / name, **run))
    return paths


def check_parameters(cells: list[str]) -> None:
    """Refuse parameters that papermill injected under a name the notebook does not have.

    papermill only warns, and the run goes on with the default: a misspelt `epoch=200` would cost a night.

    Args:
        cells: the sources run so far, as IPython keeps them in `In`. The injected cell follows the one it overrides.

    Raises:
        ValueError: unknown names, the message lists the good ones; something else where a list belongs.
    """
    for declared, injected in pairwise(cells):
        if injected.startswith(_INJECTED):
            known, given = _assigned_values(declared), _assigned_values(injected)
            unknown = [name for name in given if name not in known]
            if unknown:
                raise ValueError(
                    f"unknown notebook parameter {', '.join(unknown)}: this chapter has {', '.join(sorted(known))}"
                )
            for name, value in given.items():
                if isinstance(known[name], list) and not isinstance(value, list):  # -p passes '[a, b]' as a string
                    raise ValueError(
                        f"{name}={value!r}: expected a list; papermill takes one as -y '{name}: [first, second]'"
                    )


def _assigned_values(source: str) -> dict:
    """The names a cell assigns, with their values where these are literals (else None)."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell with a magic or a mistake: not a parameters cell
        return {}
    pairs = [(t, node.value) for node in body if isinstance(node, ast.Assign) for t in node.targets]
    return {target.id: _literal(value) for target, value in pairs if isinstance(target, ast.Name)}


def _literal(node: ast.expr):
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
