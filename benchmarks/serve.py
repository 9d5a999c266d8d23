"""What `vpkit serve` answers a second, and how long a request waits, by the number of clients that ask at once.

    python benchmarks/serve.py                    one to 100 clients, each model (2 minutes)
    ... --out benchmarks/results/DATE-serve.json  keeps it; --toy proves in seconds that the script works

Clients and service are processes on one machine and share its cores; requests go over the loopback, a JPEG of 160 px
each.
"""

import argparse
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import httpx
from PIL import Image

import vpkit
from vpkit.book.results import provenance

CLIENTS = (1, 8, 32, 100)
MODELS = ("efficientnet_lite0", "tiny-vit")


def ask(address: str, content: bytes, requests: int) -> list[float]:
    """Seconds of each of so many requests, one after the other."""
    seconds = []
    with httpx.Client(timeout=120) as client:
        for _ in range(requests):
            started = time.perf_counter()
            answer = client.post(f"{address}/predict", files={"image": ("a.jpg", content)})
            seconds.append(time.perf_counter() - started)
            answer.raise_for_status()
    return seconds


def many(address: str, content: bytes, clients: int, requests: int) -> list[float]:
    """The same by so many clients at once, in a process that is not the service's."""
    with ThreadPoolExecutor(clients) as pool:
        each = pool.map(lambda _: ask(address, content, max(1, requests // clients)), range(clients))
        return [seconds for of_client in each for seconds in of_client]


def measured(model: str, requests: int, clients: tuple[int, ...]) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        train, val = (vpkit.load_dataset("textile", split, size=160, subset=30) for split in ("train", "val"))
        file = io.BytesIO()
        Image.fromarray(train.images[0].permute(1, 2, 0).numpy()).save(file, "JPEG")
        content = file.getvalue()
        task = vpkit.tasks.fit_task(train, val, model, method="GDA")
        vpkit.tasks.save_task(Path(folder, "task.safetensors"), task)
        port = 8734
        command = [sys.executable, "-m", "vpkit.book.cli", "serve", f"{folder}/task.safetensors", "--port", str(port)]
        service = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        address, rows = f"http://127.0.0.1:{port}", []
        try:
            for _ in range(240):
                try:
                    httpx.get(f"{address}/health")
                    break
                except httpx.TransportError:
                    time.sleep(0.25)
            ask(address, content, 3)  # the first ones load what is loaded late
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                for count in clients:
                    started = time.perf_counter()
                    seconds = pool.apply(many, (address, content, count, requests))
                    took = time.perf_counter() - started
                    rows.append({
                        "model": model, "clients": count, "requests": len(seconds),
                        "per_second": len(seconds) / took, "median_s": statistics.median(seconds),
                        "slowest_of_20_s": sorted(seconds)[int(0.95 * (len(seconds) - 1))],
                    })  # fmt: skip
                    print(json.dumps(rows[-1]), flush=True)
        finally:
            service.terminate()
            service.wait()
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    rows = []
    for model in MODELS[1:] if args.toy else MODELS:
        rows += measured(model, 4 if args.toy else 400, (1, 2) if args.toy else CLIENTS)
    if args.out:
        about = {"date": f"{date.today()}", "cores": len(os.sched_getaffinity(0)), "provenance": provenance()}
        args.out.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
