import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml

import vpkit
from vpkit.book import grids
from vpkit.book.grids import read_grid
from vpkit.book.sweep import collect, main, run_point, run_points

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = 'dataset = "icons"\nseed = 0\naction = ""\nresults_dir = ""'
BODY = """
import json, os, signal, time
from pathlib import Path
if action == "fail" and seed == 1:
    raise RuntimeError("seed 1 is unlucky")
if action == "kill" and not Path("killed").exists():
    Path("killed").touch()
    os.kill(os.getppid(), signal.SIGKILL)  # the worker, not the kernel
    time.sleep(60)
if action == "wait":
    Path("started").touch()
    time.sleep(0 if seed == 0 else 60)
run = json.loads(Path(os.environ["SAVED_RUN"]).read_text())
run |= {"parameters": {"dataset": dataset, "seed": seed}, "metrics": {"test_accuracy": 0.5 + seed / 10}}
Path(results_dir, f"run-{seed}.json").write_text(json.dumps(run))
"""  # does without vpkit, which takes a kernel seconds to import


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """Writes a grid over a stub notebook, gives its path."""
    monkeypatch.setenv("SAVED_RUN", str(tmp_path / "saved.json"))
    vpkit.book.save_run(tmp_path / "saved.json", method="stub", parameters={}, metrics={})

    def write(body=BODY, prose="Text.", **block):
        cells = [
            nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            nbformat.v4.new_markdown_cell(prose),
            nbformat.v4.new_code_cell(body),
        ]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "stub.ipynb")
        path = tmp_path / "grid.yaml"
        path.write_text(yaml.safe_dump({"notebook": "stub.ipynb"} | block))
        return path

    return write


def test_a_grid_is_every_point_with_every_combination(grid, tmp_path):
    (tmp_path / "base.yaml").write_text("dataset: textile\naction: wait\n")
    path = grid(
        base="base.yaml", parameters={"action": ""}, grid={"seed": [0, 1]}, points=[{}, {"dataset": "digits"}, {}]
    )
    found = [point.parameters for point in read_grid(path)]
    assert found == [{"dataset": name, "action": "", "seed": seed} for seed in (0, 1) for name in ("textile", "digits")]


def test_code_parameters_and_version_name_a_point_prose_does_not(grid, monkeypatch):
    def key(**options):
        return read_grid(grid(**options))[0].key

    usual = key(points=[{"seed": 3}])
    assert key(points=[{"seed": 3}], prose="Other words.") == usual
    assert key(points=[{"seed": 4}]) != usual
    assert key(points=[{"seed": 3}], body=BODY + "\n1 + 1") != usual
    monkeypatch.setattr("vpkit.book.grids.code_digest", lambda: "other code")
    assert key(points=[{"seed": 3}]) != usual


def test_comments_and_docstrings_do_not_change_the_digest_of_the_code(tmp_path, monkeypatch):
    package = tmp_path / "vpkit"
    shutil.copytree(ROOT / "vpkit", package, ignore=shutil.ignore_patterns("data", "__pycache__"))
    monkeypatch.setattr(grids, "__file__", str(package / "book" / "grids.py"))
    digest, usual = grids.code_digest.__wrapped__, grids.code_digest()
    assert digest() == usual
    path = package / "methods" / "vp.py"
    text = path.read_text()
    path.write_text("# A comment.\n" + text.replace('"""How many numbers', '"""The number of numbers'))
    assert digest() == usual
    path.write_text(text.replace("parameter.numel()", "1"))
    assert digest() != usual


@pytest.mark.slow
def test_runs_of_other_code_are_marked_and_not_collected(grid, tmp_path, monkeypatch, capsys):
    path, out = grid(grid={"seed": [0, 1]}, points=[{"action": "fail"}]), tmp_path / "out"
    old = read_grid(path)[0]
    key = old.key
    assert run_point(old, str(out)) == ""
    monkeypatch.setattr("vpkit.book.grids.code_digest", lambda: "other code")
    points = read_grid(path)
    assert run_point(points[1], str(out))
    assert main([str(path), "--out", str(out), "--list"]) == 0
    listed = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert [points[0].key] == [words[0] for words in listed if len(words) == 2 and words[0] == points[0].key]
    assert ["failed", points[1].key] in listed
    assert ["stale", f"{key}:"] in listed
    with pytest.raises(ValueError, match="no finished point"):
        collect(points, out, tmp_path / "all.json")
    assert (out / key / "executed.ipynb").exists()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"points": [{"sede": 1}]}, "no parameter sede: expected some of action, dataset, seed"),
        ({"points": [{"results_dir": "x"}]}, "no parameter results_dir"),
        ({"grid": {"seed": 1}}, "seed is 1: expected a list"),
        ({"grid": {"seed": []}}, r"seed is \[\]: expected a list"),
        ({"points": {"seed": 1}}, "points is .*: expected a list"),
        ({"points": ["seed"]}, "'seed': expected parameters"),
        ({"parameters": [1]}, "expected a dict"),
        ({"notebok": 1}, "expected a block with notebook"),
        ({"notebook": "none.ipynb"}, "no notebook"),
        ({"base": "none.yaml"}, "none.yaml"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(grid, block, message):
    with pytest.raises(ValueError, match=message):
        read_grid(grid(**block))


def test_a_file_that_is_no_grid_is_refused(tmp_path):
    path = tmp_path / "grid.yaml"
    for content in (b"[unclosed", b"just words", b"\xff\xfe\x00", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"grid\.yaml"):
            read_grid(path)


@pytest.mark.slow
def test_on_ray_a_failing_point_stops_no_other_and_a_killed_worker_is_replaced(grid, tmp_path, capsys):
    killed = read_grid(grid(points=[{"action": "kill"}]))
    path = grid(grid={"seed": [0, 1, 2]}, points=[{"action": "fail"}])
    points, out = [*read_grid(path), *killed], tmp_path / "out"
    found = run_points(points, out, cpus=1, gpus=0, progress=False)
    assert [bool(error) for error in found.values()] == [False, True, False, False]
    assert "seed 1 is unlucky" in found[points[1].key]
    assert (out / killed[0].key / "killed").exists()
    partly = nbformat.read(out / points[1].key / "partly.ipynb", as_version=4)
    assert "seed 1 is unlucky" in (out / points[1].key / "error.txt").read_text()
    assert any(o.output_type == "error" for cell in partly.cells if cell.cell_type == "code" for o in cell.outputs)
    times = {p.key: (out / p.key / "executed.ipynb").stat().st_mtime_ns for p in (points[0], points[2])}

    assert main([str(path), "--out", str(out), "--gpus", "0", "--json", str(tmp_path / "all.json")]) == 1
    assert "2 of 3 points done" in capsys.readouterr().out
    assert times == {key: (out / key / "executed.ipynb").stat().st_mtime_ns for key in times}, "run again"
    runs = vpkit.book.load_runs(tmp_path / "all.json")
    assert runs[["method", "seed", "test_accuracy"]].values.tolist() == [["stub", 0, 0.5], ["stub", 2, 0.7]]
    mended = BODY.replace('raise RuntimeError("seed 1 is unlucky")', "pass")
    grid(body=mended, grid={"seed": [0, 1, 2]}, points=[{"action": "fail"}])
    assert main([str(path), "--out", str(out), "--gpus", "0"]) == 0


@pytest.mark.slow
def test_a_point_that_is_done_is_not_run_again_by_another_sweep(grid, tmp_path):
    point = read_grid(grid())[0]
    assert run_point(point, str(tmp_path)) == ""
    before = (tmp_path / point.key / "executed.ipynb").stat().st_mtime_ns
    assert run_point(point, str(tmp_path)) == ""
    assert (tmp_path / point.key / "executed.ipynb").stat().st_mtime_ns == before
    assert not (tmp_path / point.key / "partly.ipynb").exists()


def test_collecting_nothing_is_an_error(grid, tmp_path):
    with pytest.raises(ValueError, match="no finished point"):
        collect(read_grid(grid()), tmp_path, tmp_path / "all.json")


@pytest.mark.slow
def test_two_sweeps_into_one_folder_and_an_interrupt(grid, tmp_path):
    """Ctrl-C leaves what is finished and no kernel; started twice, the rest is done once."""
    path = grid(grid={"seed": [0, 1]}, points=[{"action": "wait"}])
    points, out = read_grid(path), tmp_path / "out"
    command = [sys.executable, "-m", "vpkit.book.sweep", str(path), "--out", str(out), "--gpus", "0"]
    long = tmp_path / ("long" * 30)  # sockets below it would have too long a path
    long.mkdir()
    environment = os.environ | {"TMPDIR": str(long)}
    # A shell that runs the tests in its background makes them, and what they start, deaf to Ctrl-C.
    hearing = {"start_new_session": True, "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, **hearing)
    _wait_for(lambda: (out / points[0].key / "executed.ipynb").exists())
    _wait_for(lambda: (out / points[1].key / "started").exists())
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=240)
    assert running.returncode == 130, told
    assert "the same command goes on" in told
    _wait_for(lambda: not _kernels_in(out))
    assert json.loads((out / points[0].key / "run-0.json").read_text())["metrics"] == {"test_accuracy": 0.5}
    assert not (out / points[1].key / "executed.ipynb").exists()

    path = grid(body=BODY.replace("60", "3"), grid={"seed": [0, 1]}, points=[{"action": "wait"}])
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert ["2 of 2 points done" in process.communicate(timeout=400)[0] for process in both] == [True, True]
    for point in read_grid(path):
        nbformat.validate(nbformat.read(out / point.key / "executed.ipynb", as_version=4))
        assert len(list((out / point.key).glob("run-*.json"))) == 1


def _kernels_in(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words, place = process.info["cmdline"] or [], process.info["cwd"] or ""
        if "ipykernel_launcher" in " ".join(words) and place.startswith(str(folder)):
            found.append(process.pid)
    return found


def _wait_for(condition, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_the_grids_in_the_repository_are_grids():
    paths = sorted((ROOT / "grids").rglob("*.yaml"))
    assert paths
    for path in paths:
        assert read_grid(path), path
