"""What a cut-off training run needs to go on as if nothing had happened: one file, replaced whole after each epoch.

Tensors lie in a safetensors file, everything else as JSON in its header; nothing is pickled.
"""

import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vpkit.files import read_safetensors, write_atomically
from vpkit.interfaces import Classifier, LabelledBatches
from vpkit.training.history import History

__all__ = ["checkpoint_file", "epochs_left", "load_checkpoint", "save_checkpoint"]

_SCHEDULED = ("last_epoch", "_step_count", "_last_lr")  # what moves; the rest is as it was made


def epochs_left(
    name: str,
    classifier: Classifier,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    batches: LabelledBatches,
    epochs: int,
    history: History,
    checkpoint: str | Path | None = None,
) -> Iterator[int]:
    """The epochs of a training loop, from 1 or from where it was cut off; the state is kept after each.

    Args:
        name: of the run.
        classifier, optimizer, scheduler, batches, epochs: as for `save_checkpoint`.
        history: gets the rows of the epochs that were done before, and the seconds; the loop adds its own rows.
        checkpoint: as for `checkpoint_file`.

    Raises:
        ValueError: as `load_checkpoint`.
    """
    started, state = perf_counter(), (classifier, optimizer, scheduler, batches, epochs)
    path = checkpoint_file(checkpoint, name)
    if path is not None:
        history.rows[:] = load_checkpoint(path, *state)
    for epoch in range(len(history) + 1, epochs + 1):
        yield epoch
        history.seconds = perf_counter() - started
        if path is not None:
            save_checkpoint(path, *state, history.rows)


def checkpoint_file(place: str | Path | None, name: str) -> Path | None:
    """Where the state of a run is kept: None keeps none.

    Args:
        place: a `.safetensors` file, or a folder for one of this name. By default the folder `$VPKIT_CHECKPOINTS`, for
            runs that have a name; without it nothing is kept.
        name: of the run.
    """
    if place is None or place == "":
        place = os.environ.get("VPKIT_CHECKPOINTS", "") if name else ""
    if place == "":
        return None
    if Path(place).suffix == ".safetensors":
        return Path(place)
    return Path(place) / f"{re.sub(r'[^A-Za-z0-9+-]+', '_', name) or 'run'}.safetensors"


def save_checkpoint(
    path: str | Path,
    classifier: Classifier,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    batches: LabelledBatches,
    epochs: int,
    rows: list[dict],
) -> Path:
    """Write the state after `len(rows)` epochs to `path`.

    Args:
        path: ends in `.safetensors`.
        classifier: what takes gradients and what was assigned (the mapping) is saved; the frozen model is not.
        optimizer, scheduler: with their state.
        batches: the training batches; the state of their generator is saved.
        epochs: how many the run will have in all.
        rows: the history so far.
    """
    state = optimizer.state_dict()
    tensors = {f"classifier.{name}": value for name, value in classifier.state_dict().items()}
    numbers: dict[str, float] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            (tensors if isinstance(value, Tensor) else numbers)[f"optimizer.{index}.{name}"] = value
    tensors |= {f"random.{name}": value for name, value in _random_state(batches).items()}
    header = {
        "signature": _signature(classifier, optimizer, batches, epochs),
        "rows": rows,
        "groups": state["param_groups"],
        "numbers": numbers,
        "scheduler": {k: v for k, v in scheduler.state_dict().items() if k in _SCHEDULED},
        "python": random.getstate(),
        "numpy": _numpy_state(),
    }
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    metadata = {"vpkit": json.dumps(header)}
    return write_atomically(path, lambda part: save_file(tensors, part, metadata=metadata))


def load_checkpoint(
    path: str | Path,
    classifier: Classifier,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    batches: LabelledBatches,
    epochs: int,
) -> list[dict]:
    """Restore everything that `save_checkpoint` wrote and return the history so far; [] if there is no file.

    Raises:
        ValueError: a file that is cut short or no checkpoint, or one of another run; the message says what differs.
    """
    if not Path(path).exists():
        return []
    metadata, tensors = read_safetensors(path, "checkpoint", "vpkit")
    header, ours = metadata["vpkit"], _signature(classifier, optimizer, batches, epochs)
    if not isinstance(header, dict) or not isinstance(theirs := header.get("signature"), dict):
        raise ValueError(f"{path}: a checkpoint without signature; remove it to start anew")
    different = [f"{name} {theirs.get(name)}, now {value}" for name, value in ours.items() if theirs.get(name) != value]
    if different:
        raise ValueError(f"{path} belongs to another run ({'; '.join(different)}): remove it, or give another path")

    learned = {n.removeprefix("classifier."): v for n, v in tensors.items() if n.startswith("classifier.")}
    classifier.load_state_dict(learned, strict=False)
    state: dict = {}
    for name, value in [*tensors.items(), *header["numbers"].items()]:
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": header["groups"]})
    lambdas = {"lr_lambdas": [None] * len(header["groups"])} if hasattr(scheduler, "lr_lambdas") else {}
    scheduler.load_state_dict(header["scheduler"] | lambdas)
    _restore_random_state(tensors, header, batches)
    return header["rows"]


def _signature(classifier, optimizer, batches, epochs) -> dict:
    return {
        "epochs": epochs,
        "learned": {name: list(value.shape) for name, value in classifier.state_dict().items()},
        "optimizer": type(optimizer).__name__,
        "steps per epoch": len(batches),
    }


def _random_state(batches) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    states |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    if getattr(batches, "generator", None) is not None:
        states["batches"] = batches.generator.get_state()
    return states


def _numpy_state() -> dict:
    state = np.random.get_state(legacy=False)  # noqa: NPY002 (whoever draws from the global generator)
    return state | {"state": {"key": state["state"]["key"].tolist(), "pos": state["state"]["pos"]}}


def _restore_random_state(tensors, header, batches) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    for i in range(torch.cuda.device_count()):
        if f"random.cuda{i}" in tensors:
            torch.cuda.set_rng_state(tensors[f"random.cuda{i}"], i)
    if "random.batches" in tensors and getattr(batches, "generator", None) is not None:
        batches.generator.set_state(tensors["random.batches"])
    version, values, gauss = header["python"]
    random.setstate((version, tuple(values), gauss))
    numpy_state = header["numpy"]
    key = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy_state | {"state": {"key": key, "pos": numpy_state["state"]["pos"]}})  # noqa: NPY002
