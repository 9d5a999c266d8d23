"""What the training of an image tower needs beside torch: several processes, checkpoints."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from tiny_clip.prepare import prepare
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vpkit.book.session import keep_freed_memory


def in_workers(work: Callable, args) -> None:
    """Run `work(rank, args)` in `args.workers` processes."""
    prepare(args.data, args.icons, args.folder)  # once, before all of them read it
    (args.folder / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(work, (args,), nprocs=args.workers)


def start_worker(rank: int, workers: int, folder: Path) -> None:
    """One of `workers` processes with one thread each, which see each other's gradients."""
    keep_freed_memory()
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "rendezvous"), workers)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=workers)


def share_gradients(network: nn.Module) -> None:
    """Replace every gradient by its mean over the processes."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


class Training:
    """Steps of a network with checkpoints and a running average of its weights; goes on from `path` if it is there."""

    def __init__(self, network: nn.Module, optimizers: list[torch.optim.Optimizer], path: Path, steps: int):
        self.network, self.optimizers, self.path, self.steps = network, optimizers, path, steps
        decay = min(0.998, 1 - 10 / steps)  # over a tenth of a short run
        self.averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.step, rates = 0, [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        if path.exists():
            kept = torch.load(path, weights_only=True)
            network.load_state_dict(kept["network"])
            self.averaged.load_state_dict(kept["averaged"])
            for optimizer, state in zip(optimizers, kept["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self.step = kept["step"]
        for optimizer, full in zip(optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, full, strict=True):
                group["full_lr"] = rate  # of this call, not of the checkpoint
        self.first, self.started, self.sums, self.count = self.step, time.time(), {}, 0

    def run(self, losses: Callable[[float], tuple[Tensor, dict]], rank: int = 0, seed: int = 0) -> None:
        """Until the last step. `losses` takes the progress in [0, 1]; gives the loss and values to be printed."""
        torch.manual_seed(1000 * seed + self.step + 7 * rank)
        while self.step < self.steps:
            progress = self.step / self.steps
            rate = min(1, (self.step + 1) / 100) * (min(1, (1 - progress) / 0.8) + 0.005)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["full_lr"]
                optimizer.zero_grad()
            loss, values = losses(progress)
            loss.backward()
            if dist.is_initialized():
                share_gradients(self.network)
            for optimizer in self.optimizers:
                optimizer.step()
            self.averaged.update_parameters(self.network)
            self.step += 1
            if rank == 0:
                self._report(values)

    def _report(self, values: dict) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.item()
        self.count += 1
        if self.step % 50 == 0 or self.step == self.steps:
            means = "  ".join(f"{name} {value / self.count:.3f}" for name, value in self.sums.items())
            pace = (self.step - self.first) / (time.time() - self.started)
            print(f"step {self.step} of {self.steps}  {means}  {pace:.2f} steps/s", flush=True)
            self.sums, self.count = {}, 0
        if self.step % 250 == 0 or self.step == self.steps:
            optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
            state = {"network": self.network.state_dict(), "averaged": self.averaged.state_dict(), "step": self.step}
            torch.save(state | {"optimizers": optimizers}, self.path.with_suffix(".part"))
            self.path.with_suffix(".part").replace(self.path)


def averaged_weights(path: Path) -> dict:
    """The running average a checkpoint of `Training` holds."""
    averaged = torch.load(path, weights_only=True)["averaged"]
    return {name.removeprefix("module."): value for name, value in averaged.items() if name.startswith("module.")}
