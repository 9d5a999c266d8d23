"""Images a second of a prompt step on the CPU, by model, batch size, memory format, precision and threads.

    python benchmarks/cpu_settings.py [--toy] [--out FILE.json]

One thing at a time is changed from what vpkit does (batch 16, channels-last, float32, all cores).
"""

import argparse
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from datetime import date
from functools import partial
from pathlib import Path
from time import perf_counter

import torch

import vpkit
from vpkit.book.results import provenance
from vpkit.book.session import keep_freed_memory

USUAL = {"batch": 16, "channels_last": True, "bf16": False, "threads": os.cpu_count()}
CHANGES = [{}, *({"batch": n} for n in (4, 8, 32, 64)), {"channels_last": False}, {"bf16": True}, {"threads": 1}]
SIZES = {"efficientnet_lite0": 112, "resnet18": 112, "resnet50": 112, "tiny": 96, "tiny-vit": 96, "ViT-B-32": 224}


def build(name: str):
    """The frozen network alone, random weights where none ship."""
    if name in ("tiny", "tiny-vit"):
        return vpkit.load_clip(name).network.visual
    if name == "ViT-B-32":
        import open_clip

        return open_clip.create_model(name, force_quick_gelu=True).visual.eval().requires_grad_(False)
    if name == "efficientnet_lite0":
        return vpkit.load_frozen(name).network
    import torchvision

    return getattr(torchvision.models, name)().eval().requires_grad_(False)


def images_per_second(name: str, batch: int, channels_last: bool, bf16: bool, threads: int, seconds: float) -> float:
    """Forward and backward to the pixels, for `seconds` after two calls to warm up."""
    torch.set_num_threads(threads)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = build(name).to(memory_format=layout)
    images = torch.rand(batch, 3, SIZES[name], SIZES[name]).to(memory_format=layout)
    prompt = torch.zeros(3, SIZES[name], SIZES[name], requires_grad=True)
    precision = partial(torch.autocast, "cpu", torch.bfloat16) if bf16 else nullcontext

    def step():
        with precision():
            network(images + prompt).float().square().mean().backward()
        prompt.grad = None

    step(), step()
    started, calls = perf_counter(), 0
    while calls == 0 or perf_counter() - started < seconds:
        step()
        calls += 1
    return calls * batch / (perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # how a measurement calls itself in a process of its own
    args = parser.parse_args()
    if args.one:
        keep_freed_memory()
        print(images_per_second(**json.loads(args.one)))
        return
    rows = []
    for name in list(SIZES)[: 1 if args.toy else None]:
        for change in CHANGES[: 1 if args.toy else None]:
            setting = USUAL | change
            asked = json.dumps(setting | {"name": name, "seconds": 0.1 if args.toy else 4.0})
            ran = subprocess.run([sys.executable, __file__, "--one", asked], capture_output=True, text=True)
            if ran.returncode:
                raise RuntimeError(f"{name} {setting} failed:\n{ran.stderr[-2000:]}")
            rows.append({"model": name, **setting, "images_per_second": float(ran.stdout.split()[-1])})
            shown = ", ".join(f"{k}={v}" for k, v in change.items()) or "as vpkit does"
            print(f"{name:<20} {shown:<22} {rows[-1]['images_per_second']:8.0f} images/s", flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        found = {"date": str(date.today()), **provenance(), "settings": rows}
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
