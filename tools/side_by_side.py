"""Notebooks run side by side: as many at once as there are cores, one thread each, the longest first.

One thread each uses a machine better than all cores on one notebook after the other (networks this small gain little
from a second thread), and it makes the numbers independent of how many cores there are. concurrent.futures schedules,
papermill executes, rich draws the lines on a terminal.
"""

import json
import os
import resource
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

ROOT = Path(__file__).resolve().parents[1]
TIMES = ROOT / "benchmarks" / "results" / "chapters.json"  # what each code cell took when the chapters were stored
CELL_TIMEOUT = 1200  # seconds: a kernel that hangs must not hang the build
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
PLAIN_EVERY = 15  # seconds between two lines of progress where there is no terminal


@dataclass(frozen=True)
class Job:
    """One notebook to be run, with papermill's `parameters`.

    Attributes:
        cwd: the folder it runs in; None: that of its output.
        expected: seconds of each code cell, for the order and the estimate; empty where nothing is known.
    """

    name: str
    source: Path
    output: Path
    parameters: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    cwd: Path | None = None
    expected: tuple[float, ...] = ()
    cells: int = 0  # code cells

    @classmethod
    def of(cls, name: str, source: Path, output: Path, **more) -> "Job":
        """A job that knows how long its cells took when `source` was stored, if it is a chapter."""
        cells = sum(cell.cell_type == "code" for cell in nbformat.read(source, as_version=4).cells)
        known = stored_times().get("chapters", {}).get(source.stem, {}).get("cells", [])
        expected = tuple(known) if len(known) == cells else (1.0,) * cells
        return cls(name, source, output, expected=expected, cells=cells, **more)


@dataclass(frozen=True)
class Outcome:
    """How a job ended: "" or an error that names the cell, and what it took."""

    name: str
    error: str
    seconds: float
    core_seconds: float
    cells: tuple[float, ...]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def stored_times() -> dict:
    return json.loads(TIMES.read_text()) if TIMES.exists() else {}


def run_all(jobs: list[Job], workers: int | None = None, after: float = 0.0) -> Iterator[Outcome]:
    """Run the jobs, show how far they are, and give each outcome as soon as it is there.

    A job that fails stops no other.

    Args:
        workers: notebooks at once; None: one a core that this process may use.
        after: seconds that whatever follows is expected to take, for the estimate.
    """
    if not jobs:
        return
    workers = min(workers or cores(), len(jobs))
    context = get_context("spawn")
    with context.Manager() as manager, watched(jobs, workers, after) as watch:
        events = manager.Queue()
        listener = threading.Thread(target=lambda: [watch.reached(*e) for e in iter(events.get, None)], daemon=True)
        listener.start()
        pool = ThreadPoolExecutor(workers)
        longest_first = sorted(jobs, key=lambda job: -sum(job.expected))
        waiting = [pool.submit(_in_its_own_process, job, events, context) for job in longest_first]
        try:
            for finished in as_completed(waiting):
                watch.ended(finished.result())
                yield finished.result()
        finally:  # after Ctrl-C; the running ones have had it too
            pool.shutdown(cancel_futures=True)
            events.put(None)
            listener.join(5)


def _in_its_own_process(job: Job, events, context) -> Outcome:
    """Nothing of one job is left for the next, what its kernel used can be told apart, and if it is killed it is alone.

    A pool of one for each: a shared one with `max_tasks_per_child` can wait for ever for a process that it replaced.
    """
    with ProcessPoolExecutor(1, context) as own:
        try:
            return own.submit(_run, job, events).result()
        except BrokenProcessPool:
            lost = f"{job.name}: its process was killed (out of memory?); try WORKERS=1"
            return Outcome(job.name, lost, 0.0, 0.0, ())


def _run(job: Job, events) -> Outcome:
    os.environ.update(ONE_THREAD | job.environment)  # of this process; its kernel inherits it
    started, error = perf_counter(), ""
    number = iter(range(job.cells + 1))

    def cell_started(cell, cell_index):
        if cell.cell_type == "code" and not _injected(cell):
            events.put((job.name, next(number)))

    try:
        papermill.execute_notebook(
            job.source, job.output, job.parameters,
            kernel_name="python3", cwd=job.cwd or job.output.parent, progress_bar=False, execution_timeout=CELL_TIMEOUT,
            on_cell_start=cell_started,
        )  # fmt: skip
    except PapermillExecutionError as failed:
        source = failed.source.strip().splitlines()
        error = f"{job.name}: code cell {failed.exec_count} failed ({source[0] if source else ''})\n"
        error += f"{failed.ename}: {failed.evalue}\npartly executed notebook: {job.output}"
    except (DeadKernelError, TimeoutError) as failed:  # killed for want of memory; a cell over the limit
        error = f"{job.name}: {type(failed).__name__}: {failed}"
    seconds = perf_counter() - started
    took = [] if error else cell_seconds(job.output)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # the kernel, which has ended
    return Outcome(job.name, error, seconds, used.ru_utime + used.ru_stime, tuple(took))


def cell_seconds(executed: Path) -> list[float]:
    """What papermill measured of each code cell; its own cell of parameters is left out."""
    cells = nbformat.read(executed, as_version=4).cells
    return [c.metadata.papermill.duration for c in cells if c.cell_type == "code" and not _injected(c)]


def _injected(cell) -> bool:
    return "injected-parameters" in cell.metadata.get("tags", [])


class Watch:
    """How far every job is. What is left is estimated from stored times and from the pace of this run so far."""

    def __init__(self, jobs: list[Job], workers: int, after: float = 0.0):
        self.jobs, self.workers, self.after = {job.name: job for job in jobs}, workers, after
        self.began = perf_counter()
        self.at: dict[str, tuple[int, float, float]] = {}  # running: (code cell, its start, the start of the job)
        self.done: dict[str, Outcome] = {}

    def reached(self, name: str, cell: int) -> None:
        if name not in self.done:
            now = perf_counter()
            self.at[name] = cell, now, self.at[name][2] if name in self.at else now

    def ended(self, outcome: Outcome) -> None:
        self.at.pop(outcome.name, None)
        self.done[outcome.name] = outcome

    def seconds_left(self) -> float:
        now = perf_counter()
        spent, finished = 20.0, 20.0  # a run just begun is expected to go as fast as the stored one
        left = {name: sum(job.expected) for name, job in self.jobs.items() if name not in self.done}
        for name, outcome in self.done.items():
            spent, finished = spent + outcome.seconds, finished + sum(self.jobs[name].expected)
        for name, (cell, cell_began, job_began) in list(self.at.items()):
            expected = self.jobs[name].expected
            behind = sum(expected[:cell]) + min(now - cell_began, *expected[cell : cell + 1], 1e9)
            left[name] -= behind
            spent, finished = spent + now - job_began, finished + behind
        work = max(sum(left.values()) / self.workers, *left.values(), 0.0)
        return work * spent / finished + self.after

    def where(self, name: str) -> str:
        return f"{name} at cell {self.at[name][0] + 1} of {self.jobs[name].cells}"

    def line(self) -> str:
        running = "; ".join(self.where(name) for name in list(self.at)) or "starting"
        done = f"{_clock(perf_counter() - self.began)}  {len(self.done)} of {len(self.jobs)} done"
        return f"{done}; {running}; about {_spoken(self.seconds_left())} left"


@contextmanager
def watched(jobs: list[Job], workers: int, after: float):
    """A `Watch` that is shown: one live line a notebook on a terminal, elsewhere a plain line now and then."""
    watch, over = Watch(jobs, workers, after), threading.Event()
    console = Console()
    show = _show_live if console.is_terminal else _show_plain
    shower = threading.Thread(target=show, args=(watch, over, console), daemon=True)
    shower.start()
    try:
        yield watch
    finally:
        over.set()
        shower.join()


def _show_plain(watch: Watch, over: threading.Event, console: Console) -> None:
    said: set[str] = set()

    def say_finished():
        for name, outcome in list(watch.done.items()):
            if name not in said:
                said.add(name)
                print(summary(outcome), flush=True)

    wait = 2.0  # the first line comes soon
    while not over.wait(wait):
        say_finished()
        print(watch.line(), flush=True)
        wait = PLAIN_EVERY
    say_finished()


def _show_live(watch: Watch, over: threading.Event, console: Console) -> None:
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(24, pulse_style="bar.back"),
        TextColumn("{task.fields[where]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        lines = {
            name: progress.add_task(name, start=False, total=max(job.cells, 1), where="waits")
            for name, job in watch.jobs.items()
        }
        total = progress.add_task("all", total=len(lines), where="")
        running = True
        while running:
            running = not over.wait(0.5)
            for name, task in lines.items():
                if name in watch.done:
                    outcome = watch.done[name]
                    where = "failed" if outcome.error else f"{outcome.core_seconds:.0f} core-seconds"
                    progress.update(task, completed=max(watch.jobs[name].cells, 1), where=where)
                    progress.stop_task(task)
                elif name in watch.at:
                    progress.start_task(task)
                    cell = watch.at[name][0]
                    progress.update(task, completed=cell, where=f"cell {cell + 1} of {watch.jobs[name].cells}")
            left = f"about {_spoken(watch.seconds_left())} left" if running else ""
            progress.update(total, completed=len(watch.done), where=left)


def summary(outcome: Outcome) -> str:
    """The line that is printed when a notebook has ended."""
    state = "FAILED after" if outcome.error else "took"
    return f"{outcome.name} {state} {outcome.seconds:.0f} s, {outcome.core_seconds:.0f} core-seconds"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _spoken(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{10 * round(seconds / 10)} s" if seconds > 10 else "10 s"


def print_errors(outcomes: list[Outcome]) -> bool:
    """Print what failed, at the end, where it is read; True if anything did."""
    for outcome in outcomes:
        if outcome.error:
            print(f"\n{outcome.error}", file=sys.stderr)
    return any(outcome.error for outcome in outcomes)
