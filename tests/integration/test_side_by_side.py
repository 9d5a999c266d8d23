"""Notebooks side by side: the same numbers however many at once, nothing lost by one that fails, true progress."""

import ast
import json
import multiprocessing.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import side_by_side  # noqa: E402
from side_by_side import Job, Outcome, Watch, run_all  # noqa: E402

TRAIN = """
import json, os
import vpkit
import torch
torch.manual_seed(seed)
network = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 5), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                              torch.nn.Flatten(), torch.nn.Linear(32, 12))
model = vpkit.models.FrozenModel(network, list("abcdefghijkl"), image_size=32)
images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
data = vpkit.ImageSet(images, torch.arange(64) % 4, tuple("abcd"))
classifier = vpkit.PromptedClassifier(vpkit.prompts.PadPrompt(32, 6), model, vpkit.mappings.random_mapping(12, 4))
optimizer = torch.optim.SGD(classifier.prompt.parameters(), lr=0.5)
history = vpkit.fit(classifier, data.batches(16, True), data.batches(64), optimizer, 2)
with open("found.json", "w") as file:
    json.dump([history.rows, torch.get_num_threads(), os.environ["CHAPTER"]], file)
"""


def write(folder: Path, name: str, *code: str) -> Job:
    cells = [nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_markdown_cell("Text."), *map(nbformat.v4.new_code_cell, code)]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    (folder / name).mkdir(parents=True)
    source = folder / f"{name}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), source)
    environment = {"CHAPTER": name}
    return Job.of(name, source, folder / name / "out.ipynb", parameters={"seed": 3}, environment=environment)


@pytest.mark.slow
def test_one_two_and_four_at_once_find_the_same_bits(tmp_path):
    found = {}
    for workers in (1, 2, 4):
        jobs = [write(tmp_path / str(workers), name, TRAIN) for name in ("first", "second")]
        assert not any(outcome.error for outcome in run_all(jobs, workers))
        found[workers] = [json.loads((job.output.parent / "found.json").read_text()) for job in jobs]
    rows, threads, name = found[1][0]
    assert threads == 1
    assert name == "first"
    assert len(rows) == 2
    assert found[1] == found[2] == found[4]
    assert found[1][0][0] == found[1][1][0]


@pytest.mark.slow
def test_one_that_fails_names_its_cell_and_stops_no_other(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(side_by_side, "PLAIN_EVERY", 0.3)
    bad = write(tmp_path, "bad", "x = 1", "1 / 0", "print('not reached')")
    good = write(tmp_path, "good", "import time; time.sleep(3)", "print(seed)")
    killed = write(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)")
    outcomes = {outcome.name: outcome for outcome in run_all([bad, good, killed], 3)}
    assert outcomes["good"].error == ""
    assert outcomes["good"].cells[1] >= 3
    assert len(outcomes["good"].cells) == 3  # papermill's own cell of parameters is not one of ours
    assert outcomes["good"].core_seconds > 0
    assert "bad: code cell" in outcomes["bad"].error
    assert "(1 / 0)" in outcomes["bad"].error
    assert "ZeroDivisionError: division by zero" in outcomes["bad"].error
    assert "killed: DeadKernelError" in outcomes["killed"].error
    printed = capsys.readouterr().out
    assert "of 3 done; " in printed
    assert "good at cell 2 of 3" in printed
    assert "bad FAILED after" in printed
    assert side_by_side.print_errors(list(outcomes.values()))
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert not side_by_side.print_errors([outcomes["good"]])


def slow_to_leave(job, events):
    multiprocessing.util.Finalize(None, time.sleep, (1.0,), exitpriority=0)
    return Outcome(job.name, "", 0.1, 0.1, ())


def run_jobs_that_are_slow_to_leave(workers):
    side_by_side._run = slow_to_leave
    print([outcome.name for outcome in run_all([job(name, 1.0) for name in "abc"], workers)])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_processes_that_are_slow_to_leave_hang_nothing(workers):
    # A pool that was shut down while it waited for them lost its thread, and an idle process was waited for for ever.
    code = f"import test_side_by_side as t; t.run_jobs_that_are_slow_to_leave({workers})"
    ran = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, timeout=90)
    assert ran.returncode == 0
    assert b"Traceback" not in ran.stderr
    assert sorted(ast.literal_eval(ran.stdout.decode().splitlines()[-1])) == ["a", "b", "c"]


def killed_at_once(job, events):
    if job.name == "a":
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(job.name, "", 0.1, 0.1, ())


@pytest.mark.slow
def test_a_process_that_is_killed_takes_no_other_with_it(monkeypatch):
    monkeypatch.setattr(side_by_side, "_run", killed_at_once)
    outcomes = {outcome.name: outcome for outcome in run_all([job(name, 1.0) for name in "abc"], 2)}
    assert "a: its process was killed" in outcomes["a"].error
    assert outcomes["b"].error == outcomes["c"].error == ""


def job(name, *expected):
    return Job(name, Path("x"), Path("y"), expected=expected, cells=len(expected))


def test_what_is_left_is_estimated_from_stored_times_and_this_runs_pace(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(side_by_side, "perf_counter", lambda: now[0])
    watch = Watch([job("a", 10, 90), job("b", 50), job("c", 50)], workers=2, after=7)
    assert watch.seconds_left() == pytest.approx(200 / 2 + 7)
    watch.reached("a", 0)
    watch.reached("b", 0)
    now[0] = 10.0
    watch.reached("a", 1)
    assert watch.where("a") == "a at cell 2 of 2"
    assert watch.seconds_left() == pytest.approx((90 + 40 + 50) / 2 + 7)
    now[0] = 50.0
    watch.ended(Outcome("b", "", 50, 50, (50,)))
    watch.reached("b", 0)  # a message that comes late changes nothing
    assert "b" not in watch.at
    assert watch.seconds_left() == pytest.approx(50 + 7)  # half of a, and all of c
    watch.ended(Outcome("a", "", 200, 200, (20, 180)))  # twice as slow as it was
    assert watch.seconds_left() == pytest.approx(50 * (20 + 250) / (20 + 150) + 7)


def test_a_longest_job_alone_decides_how_long_it_takes():
    watch = Watch([job("long", 100), job("short", 10)], workers=8)
    assert watch.seconds_left() == pytest.approx(100)


def test_every_chapter_has_stored_times_of_its_cells():
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        known = side_by_side.stored_times()["chapters"][path.stem]
        assert known["cells"] == pytest.approx(Job.of("x", path, path).expected), "make tidy stores them"
        assert known["core_seconds"] > 0


def test_the_readme_has_each_chapters_own_minutes():
    """That they are the stored ones is what tools/bound_numbers.py checks."""
    readme = (ROOT / "README.md").read_text()
    for name in side_by_side.stored_times()["chapters"]:
        (line,) = [line for line in readme.splitlines() if f"`{name}`" in line]
        assert f'"chapters", "{name}", "core_seconds") / 60 -->' in line.split("|")[-2]
