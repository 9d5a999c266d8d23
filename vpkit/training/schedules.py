"""Learning-rate schedules of the papers, as functions from the step to a factor of the base rate.

Each takes the number of epochs and of steps per epoch; `LambdaLR(optimizer, schedule)` stepped once per batch
applies it, which is what `vpkit.fit` does.
"""

from collections.abc import Callable
from functools import partial
from math import cos, pi

Schedule = Callable[[int], float]
Plan = Callable[[int, int], Schedule | list[Schedule]]  # of epochs and steps per epoch


def constant(epochs: int, steps_per_epoch: int) -> Schedule:
    """The base rate throughout."""
    return lambda step: 1.0


def multistep(epochs: int, steps_per_epoch: int) -> Schedule:
    """x 0.1 after 50 % and again after 72 % of the epochs, rounded down (ILM-VP, Appendix D and released code)."""
    milestones = (int(0.5 * epochs), int(0.72 * epochs))
    return lambda step: 0.1 ** sum(step // steps_per_epoch >= milestone for milestone in milestones)


def cosine(epochs: int, steps_per_epoch: int) -> Schedule:
    """Half a cosine from the base rate to 0, step by step (VP and ILM-VP on CLIP)."""
    return warmup_cosine(epochs, steps_per_epoch, warmup_steps=0)


def warmup_cosine(epochs: int, steps_per_epoch: int, warmup_steps: int | None = 1000) -> Schedule:
    """Linear warm-up from 1 / warmup_steps to 1, then half a cosine over the rest (VP, released code).

    VP warms up for 1000 steps; a short run must shorten that, or it ends inside the warm-up. None: half an epoch.

    Raises:
        ValueError: a warm-up as long as the whole run.
    """
    steps = epochs * steps_per_epoch
    warmup_steps = steps_per_epoch // 2 if warmup_steps is None else warmup_steps
    if warmup_steps and warmup_steps >= steps:
        raise ValueError(f"warmup_steps={warmup_steps}: the whole run has {steps} steps; warm up for fewer")

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return 0.5 * (1 + cos(pi * (step - warmup_steps) / (steps - warmup_steps)))

    return factor


def of_each_group(*plans: Callable[[int, int], Schedule]) -> Callable[[int, int], list[Schedule]]:
    """One schedule for each parameter group of the optimizer, such as DPT's two learning rates with two warm-ups."""
    return lambda epochs, steps_per_epoch: [plan(epochs, steps_per_epoch) for plan in plans]


def coop(lr: float, warmup_epochs: int = 1) -> Callable[[int, int], Schedule]:
    """`constant_then_cosine` of a base rate `lr`; without a warm-up `cosine`, step by step."""
    return partial(constant_then_cosine, base_lr=lr, warmup_epochs=warmup_epochs) if warmup_epochs else cosine


def constant_then_cosine(
    epochs: int, steps_per_epoch: int, base_lr: float, warmup_epochs: int = 1, warmup_lr: float = 1e-5
) -> Schedule:
    """`warmup_epochs` at `warmup_lr`, then the epoch-wise cosine as if there had been no warm-up (CoOp, DPT)."""

    def factor(step: int) -> float:
        epoch = step // steps_per_epoch
        if epoch < warmup_epochs:
            return warmup_lr / base_lr
        # The released code restarts its count after the warm-up and does not shorten the cosine.
        return 0.5 * (1 + cos(pi * (epoch - warmup_epochs) / epochs))

    return factor
