"""One loop for every method: `train_epoch`, `evaluate`, and `fit`, which alternates them."""

import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from vpkit.interfaces import Batch, Classifier, LabelledBatches
from vpkit.training.checkpoint import epochs_left
from vpkit.training.history import History
from vpkit.training.schedules import Plan, constant

__all__ = ["EpochResult", "Evaluation", "evaluate", "fit", "train_epoch"]

Trained = TypeVar("Trained", bound=Classifier)
Found = TypeVar("Found")


@dataclass(frozen=True)
class EpochResult:
    """Mean loss and accuracy in [0, 1] over the images of one training epoch, as they were met."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        accuracy: share of correct images, in [0, 1].
        loss: mean loss per image.
        confusion: (T, T) int64, row: true class, column: predicted class.
    """

    accuracy: float
    loss: float
    confusion: Tensor

    @property
    def n(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def per_class(self) -> Tensor:
        """(T,) accuracy of each class in [0, 1]; NaN for a class without images."""
        return self.confusion.diagonal() / self.confusion.sum(1)


def train_epoch(
    classifier: Classifier,
    batches: Iterable[Batch],
    optimizer: Optimizer,
    schedule: LambdaLR | None = None,
    epoch: int = 1,
    accumulate: int = 1,
) -> EpochResult:
    """One pass over `batches`, one optimizer step per batch; returns an `EpochResult`.

    Nothing is read back from the device until the epoch is over. On a GPU the forward pass runs in bf16 (fp16 with loss
    scaling where bf16 is not native, and there the scaler waits at every step). A batch that does not fit into the
    GPU's memory is halved until it does, with a warning.

    Args:
        classifier: has `loss(images, labels) -> (loss, logits)`.
        batches: iterable of `(images, labels)`.
        optimizer: over the parameters that take gradients.
        schedule: stepped once per batch, if given.
        epoch: only named in errors.
        accumulate: parts of a batch that go through the model one after the other. A step has the gradients of the
            whole batch, unless the network being trained normalises over it (fine-tuning with BatchNorm).

    Raises:
        torch.OutOfMemoryError: a single image does not fit into the GPU's memory.
        FloatingPointError: a loss that is NaN or infinite, with epoch, step and learning rate.
        ValueError: no batches.

    Explained in chapter 1.
    """
    classifier.train()
    dtype = _autocast_dtype(next(iter(classifier.parameters())).device)
    # A modest first scale: the default of 65,536 would skip the first steps of every epoch.
    scaler = torch.amp.GradScaler(init_scale=1024.0, enabled=dtype == torch.float16)
    losses, hits, sizes, rates, parts = [], [], [], [], accumulate

    def gradients(images, labels, parts: int) -> tuple[Tensor, Tensor]:
        """Of the mean loss over a batch, part by part; returns the loss and the number of hits."""
        optimizer.zero_grad()
        found = []
        for part in _parts(labels, parts):
            with _autocast(images.device, dtype):
                loss, logits = classifier.loss(images[part], labels[part])
            loss = loss * (len(labels[part]) / len(labels))
            scaler.scale(loss).backward()
            found.append((loss.detach(), (logits.detach().argmax(1) == labels[part]).sum()))
        return sum(loss for loss, _ in found), sum(hit for _, hit in found)  # type: ignore[return-value]

    for images, labels in batches:
        (loss, hit), parts = _fitting(gradients, images, labels, parts, _say_in_parts)
        scaler.step(optimizer)
        scaler.update()
        losses.append(_number(loss))
        hits.append(_number(hit))
        sizes.append(len(labels))
        rates.append(optimizer.param_groups[0]["lr"])
        if schedule is not None:
            schedule.step()
    if not losses:
        raise ValueError("there is nothing to train on: the batches are empty; expected at least one")
    means, correct = _together(losses, hits)  # the epoch's only wait for a GPU
    if not means.isfinite().all():
        step = int((~means.isfinite()).nonzero()[0])
        raise FloatingPointError(
            f"the loss became {means[step]:g} in epoch {epoch}, step {step + 1} of {len(means)}, "
            f"at learning rate {rates[step]:g}: lower the learning rate, and check the images for NaN"
        )
    weights = torch.tensor(sizes, dtype=torch.float64)
    return EpochResult(float(means @ weights / weights.sum()), int(correct.sum()) / int(weights.sum()))


@torch.no_grad()
def evaluate(classifier: Classifier, batches: Iterable[Batch]) -> Evaluation:
    """Accuracy, loss and confusion of `classifier` over `batches`, in float32; per image, not per batch.

    On a GPU `vpkit.start` lets products of matrices run in TF32; a batch that does not fit into its memory is halved
    until it does.

    Raises:
        torch.OutOfMemoryError: a single image does not fit into the GPU's memory.
        ValueError: no batches.
    """
    classifier.eval()

    def answers(images, labels, parts: int) -> list[tuple[slice, Tensor, Tensor]]:
        return [(part, *classifier.loss(images[part], labels[part])) for part in _parts(labels, parts)]

    num_target, parts = 0, 1
    losses, sizes = [], []
    counts: Tensor | None = None
    for images, labels in batches:
        found, parts = _fitting(answers, images, labels, parts)
        for part, loss, logits in found:
            losses.append(_number(loss))
            sizes.append(len(labels[part]))
            num_target = logits.shape[1]
            cells = labels[part] * num_target + logits.argmax(1)
            counts = cells.new_zeros(num_target**2) if counts is None else counts
            counts.index_add_(0, cells, torch.ones_like(cells))  # `bincount` would wait for a GPU to know its length
    if counts is None:
        raise ValueError("there is nothing to evaluate: the batches are empty; expected at least one")
    confusion = counts.view(num_target, num_target).cpu()
    n = int(confusion.sum())
    loss_sum = float((_together(losses)[0] * torch.tensor(sizes)).sum())
    return Evaluation(int(confusion.trace()) / n, loss_sum / n, confusion)


def fit(
    classifier: Trained,
    train: LabelledBatches,
    val: LabelledBatches | None,
    optimizer: Optimizer,
    epochs: int,
    before_epoch: Callable[[Trained, int], object] | None = None,
    *,
    schedule: Plan = constant,
    name: str = "",
    checkpoint: str | Path | None = None,
    show: bool = True,
    val_interval: int | None = None,
    accumulate: int = 1,
) -> History:
    """Train for `epochs`, evaluate on validation after each, print a row each; the last epoch is the result.

    The test split has no business here: read it once, with `evaluate`, when every choice is made.

    Args:
        classifier: has `loss(images, labels) -> (loss, logits)`; left in its last state.
        train, val: `ImageSet.batches(...)` of the two splits; without `val` (None) nothing is evaluated.
        optimizer: over the parameters that take gradients.
        before_epoch: called as `before_epoch(classifier, epoch)`, epoch from 1; the one place for whatever
            happens between epochs, such as ILM's new mapping. Entries of a dict it returns join the history.
        schedule: from `vpkit.training.schedules`, called as `schedule(epochs, steps_per_epoch)`.
        name: shown in front of the printed rows.
        checkpoint: a `.safetensors` file rewritten after each epoch, or a folder for one of that `name`; by default
            the folder `$VPKIT_CHECKPOINTS`, if `name` is given. If the file is there, the run goes on where it stopped
            and gives the numbers of an unbroken one; a `before_epoch` that keeps state of its own does not.
        show: print the rows.
        val_interval: epochs between two evaluations, the last epoch always has one. None: each epoch, and in runs of
            more than a hundred so many that about a hundred evaluations are made.
        accumulate: as `train_epoch`.

    Returns:
        `History` with train_loss, train_accuracy, lr and, with `val`, val_loss and val_accuracy for each epoch, None
        for an epoch without an evaluation.

    Raises:
        FloatingPointError: as `train_epoch`.
        ValueError: a `val_interval` below 1, a checkpoint that is cut short or belongs to another run.

    Explained in chapter 1.
    """
    if val_interval is not None and val_interval < 1:
        raise ValueError(f"val_interval={val_interval}: expected at least 1 epoch")
    val_interval = val_interval or -(-epochs // 100)
    scheduler = LambdaLR(optimizer, schedule(epochs, len(train)))
    history = History()
    left = epochs_left(name, classifier, optimizer, scheduler, train, epochs, history, checkpoint)
    with tqdm(total=epochs, desc=name or "fit", unit="epoch", leave=False) as bar:
        for epoch in left:
            extra = before_epoch(classifier, epoch) if before_epoch else None
            lr = optimizer.param_groups[0]["lr"]
            fitted = train_epoch(classifier, train, optimizer, scheduler, epoch, accumulate=accumulate)
            row = {"epoch": epoch, "train_loss": fitted.loss, "train_accuracy": fitted.accuracy, "lr": lr}
            said = f"{name:<12} epoch {epoch:>3}   loss {fitted.loss:6.3f}"
            if val is not None and (epoch % val_interval == 0 or epoch == epochs):
                checked = evaluate(classifier, val)
                row |= {"val_loss": checked.loss, "val_accuracy": checked.accuracy}
                said += f"   val {checked.accuracy:6.1%}"
            elif val is not None:
                row |= {"val_loss": None, "val_accuracy": None}
            history.add(**row, **(extra if isinstance(extra, dict) else {}))
            if show:
                print(said)
            bar.n = epoch
            bar.refresh()
    return history


def _fitting(
    work: Callable[..., Found], images, labels: Tensor, parts: int, say: Callable[[Tensor, int], None] | None = None
) -> tuple[Found, int]:
    """What `work` makes of a batch in so many parts, doubled until the memory is enough; and how many they were."""
    while True:
        try:
            return work(images, labels, parts), parts
        except torch.cuda.OutOfMemoryError:
            if parts >= len(labels):
                raise
            parts *= 2
        torch.cuda.empty_cache()  # here, where the exception and with it the failed step's tensors are gone
        if say is not None:
            say(labels, parts)


def _say_in_parts(labels: Tensor, parts: int) -> None:
    warnings.warn(f"a batch of {len(labels)} is too large for the GPU: from here on in {parts} parts", stacklevel=4)


def _parts(labels: Tensor, count: int) -> list[slice]:
    """A batch in `count` parts of one size, the last may be smaller."""
    size = -(-len(labels) // count)
    return [slice(start, start + size) for start in range(0, len(labels), size)]


def _number(value: Tensor) -> Tensor | float:
    # A small CPU tensor kept of every step would lie between the large ones and hold gigabytes of holes after 600.
    return value.item() if value.device.type == "cpu" else value


def _together(*lists: list) -> Tensor:
    """L lists of N numbers, on a device or not, as (L, N) float64 on the CPU: one wait."""
    if isinstance(lists[0][0], Tensor):
        return torch.stack([torch.stack([value.float() for value in values]) for values in lists]).cpu().double()
    return torch.tensor(lists, dtype=torch.float64)


def _autocast_dtype(device: torch.device) -> torch.dtype | None:
    """bf16 on GPUs that compute in it, fp16 on older ones, full precision on the CPU."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
