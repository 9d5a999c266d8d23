"""Killed at any moment (kill -9, the whole process group), the next run starts cleanly and ends with the same numbers.

Three seeded moments each; `make stress` takes fifty and writes what it saw to results/interruptions.csv.
"""

import contextlib
import csv
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import threading
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import nbformat
import numpy as np
import pytest
from safetensors.torch import load_file

import vpkit

pytestmark = pytest.mark.slow
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


# Each job is a fork of one process that has imported vpkit, which alone takes longer than most of the jobs.
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["vpkit"])


class Started:
    """One of tests/integration/interrupted, in `folder` and as a process group of its own, about to do its work."""

    def __init__(self, job: str, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.out, out = FORKS.Pipe(duplex=False)
        self.err, err = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=work, args=(job, folder, out, err))
        self.process.start()
        for pipe in (out, err):
            pipe.close()
        said = b""
        while not said.endswith(b"\n") and (more := os.read(self.out.fileno(), 1)):  # the rest is for `end`
            said += more
        if said != b"ready\n":
            raise RuntimeError(self.end()[1])

    def end(self) -> tuple[str, str]:
        """What it wrote to stdout and stderr until it ended."""
        found, limit = [], threading.Timer(300, self.process.kill)
        limit.start()
        for pipe in (self.out, self.err):
            with pipe, open(pipe.fileno(), closefd=False) as stream:
                found.append(stream.read())
        self.process.join()
        limit.cancel()
        return found[0], found[1]


def work(job: str, folder: Path, out: Connection, err: Connection) -> None:
    os.setsid()
    for number, pipe in enumerate((out, err), start=1):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    os.chdir(folder)
    os.environ |= {"VPKIT_CACHE": str(folder / "cache"), "PYTHONWARNINGS": "ignore"}
    runpy.run_path(str(HERE / "interrupted" / f"{job}.py"), run_name="__main__")


def finish(started: Started) -> tuple[float, str]:
    """Seconds the work took, and what it found."""
    out, err = started.end()
    assert started.process.exitcode == 0, err[-2000:]
    seconds, found = out.split("\n", 1)
    return float(seconds), found


def kill_after(started: Started, seconds: float) -> bool:
    """Whether it was still at work then."""
    time.sleep(seconds)
    working = started.process.is_alive()
    with contextlib.suppress(ProcessLookupError):  # it ended by itself
        os.killpg(started.process.pid, signal.SIGKILL)
    started.end()
    return working


def left_by(job: str, folder: Path) -> str:
    """What is there after a kill. Each file that carries a result's name has to be whole."""
    if job == "book":
        return ", ".join(sorted(path.name for path in folder.glob("_build/*")))
    wholes = [path for path in folder.rglob("*.*") if path.suffix in (".npy", ".safetensors") and path.stem[0] != "."]
    for path in wholes:
        np.load(path) if path.suffix == ".npy" else load_file(path)
    if job == "results" and list(folder.glob("runs/*.json")):
        wholes = vpkit.book.load_runs(folder / "runs")  # raises if one is torn
    parts = list(folder.rglob("*.part"))
    return f"{len(wholes)} whole, {len(parts)} part"


def stub_book(folder: Path) -> None:
    for name in ("tools", "notebooks", "book"):
        (folder / name).mkdir(parents=True)
    for name in ("build_book.py", "build_live.py", "side_by_side.py"):
        shutil.copy(ROOT / "tools" / name, folder / "tools")
    code = ["x = 1", "import time\ntime.sleep(0.5)", "print('the stub ran to its ' + 'end')"]
    cells = [nbformat.v4.new_markdown_cell("# A stub"), *map(nbformat.v4.new_code_cell, code)]
    cells[1].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "notebooks" / "01_stub.ipynb")
    (folder / "book" / "intro.md").write_text("# A book\n")
    (folder / "book" / "_config.yml").write_text("title: A book\nexecute: {execute_notebooks: 'off'}\n")
    (folder / "book" / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters: [{file: notebooks/01_stub}]\n")


@pytest.mark.parametrize("job", ["train", "cache", "results", "book"])
def test_a_killed_run_can_be_run_again(job, tmp_path, kills, request):
    prepare = stub_book if job == "book" else Path.mkdir
    prepare(tmp_path / "unbroken")
    seconds, expected = finish(Started(job, tmp_path / "unbroken"))
    moments = random.Random(f"{job} 0")
    rows, interrupted = [], 0
    for number in range(kills):
        folder, moment = tmp_path / str(number), moments.uniform(0, 0.95 * seconds)
        prepare(folder)
        working = kill_after(Started(job, folder), moment)
        interrupted += working
        left = left_by(job, folder)
        _, found = finish(Started(job, folder))
        assert found == expected, f"killed after {moment:.3f} s"
        rows.append([job, number, f"{moment:.3f}", f"{seconds:.3f}", working, left, "same numbers"])
        shutil.rmtree(folder)
    assert interrupted, "no kill came in time: nothing was tested"
    if table := request.config.getoption("--kills-table"):
        new = not Path(table).exists()
        with open(table, "a", newline="") as file:
            writer = csv.writer(file)
            header = ["job", "number", "killed after, s", "unbroken, s", "was at work", "left", "next run"]
            writer.writerows([header] * new + rows)


def test_two_processes_that_build_the_same_cache_both_succeed(tmp_path):
    both = [Started("cache", tmp_path), Started("cache", tmp_path)]
    found = [finish(process)[1] for process in both]
    assert found[0] == found[1]
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1
    assert not list((tmp_path / "cache").rglob("*.part"))


def full_disk(folder: Path) -> None:
    """A file system of 512 kB; skipped where this process may not mount one."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system takes root")


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("cache", "cannot write the dataset cache .*grey.*: No space left on device. Free some space, or point VPKIT"),
        ("results", r"OSError: .*No space left on device.*: 'runs/\d+\.json'"),
        ("train", r"OSError: .*No space left on device.*: 'run\.safetensors'"),
    ],
)
def test_a_full_disk_is_said_and_spoils_nothing(job, message, tmp_path):
    small = tmp_path / "small"
    full_disk(small)
    try:
        filler = small / "filler"
        filler.write_bytes(b"x" * (470_000 if job == "train" else 300_000))
        started = Started(job, small)
        said = started.end()[1].strip()
        assert started.process.exitcode == 1
        assert re.search(message, said.splitlines()[-1]), said[-1500:]
        assert left_by(job, small).endswith("0 part")  # what was begun is taken away again
        filler.unlink()
        if job != "cache":  # the whole cache is larger than this disk
            finish(Started(job, small))
    finally:
        subprocess.run(["umount", small], check=True)
