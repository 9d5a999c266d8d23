"""A sweep on a Ray cluster of two nodes that share a folder, one of which is killed in the middle."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml

import vpkit
from vpkit.book.grids import read_grid
from vpkit.book.sweep import run_points

pytestmark = pytest.mark.slow
PARAMETERS = 'dataset = "icons"\nseed = 0\nresults_dir = ""'
BODY = """
import json, os, time
from pathlib import Path
with open(os.environ["VISITED"], "a") as visited:
    visited.write(f"{seed} {os.environ['NODE']}\\n")
time.sleep(4)
run = json.loads(Path(os.environ["SAVED_RUN"]).read_text())
run |= {"parameters": {"seed": seed}, "metrics": {"test_accuracy": 0.5 + seed / 100}}
Path(results_dir, f"run-{seed}.json").write_text(json.dumps(run))
"""


def free_port():
    """One that nobody listens on, below those that systems hand out by themselves."""
    for port in range(6400, 9999):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return str(port)
    raise OSError("no port between 6400 and 9999 is free")


def start(*words, node, **environment):
    ray = Path(sys.executable).with_name("ray")
    done = subprocess.run(
        [str(ray), "start", *words, "--num-cpus=1", "--disable-usage-stats"], capture_output=True, text=True,
        env=os.environ | {"NODE": node, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def stop(port, sockets):
    """What was started here, and no other test's Ray."""
    ours = [
        p
        for p in psutil.process_iter(["cmdline"])
        if any(f"127.0.0.1:{port}" in w or sockets in w for w in p.info["cmdline"] or ())
    ]
    for process in ours:
        if process.pid != os.getpid():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    shutil.rmtree(sockets, ignore_errors=True)


def raylets():
    return {p.pid for p in psutil.process_iter(["name"]) if p.info["name"] == "raylet"}


def accuracies(folder, points):
    found = {}
    for point in points:
        (path,) = (folder / point.key).glob("run-*.json")
        found[point.parameters["seed"]] = json.loads(path.read_text())["metrics"]["test_accuracy"]
    return found


def test_all_points_end_when_a_node_dies_and_none_is_done_twice(tmp_path, monkeypatch):
    # A head that finds ~/.ray/auth_token, which any earlier Ray may have left, wants it from the other nodes too.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("SAVED_RUN", str(tmp_path / "saved.json"))
    monkeypatch.setenv("VISITED", str(tmp_path / "visited"))
    vpkit.book.save_run(tmp_path / "saved.json", method="stub", parameters={}, metrics={})
    cells = [
        nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(BODY),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "stub.ipynb")
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({"notebook": "stub.ipynb", "grid": {"seed": list(range(6))}}))
    points, out = read_grid(tmp_path / "grid.yaml"), tmp_path / "out"

    before, port, sockets = raylets(), free_port(), tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short, for sockets
    try:
        start(
            "--head",
            f"--port={port}",
            f"--temp-dir={sockets}",
            "--node-ip-address=127.0.0.1",
            "--include-dashboard=false",
            node="first",
        )
        first = raylets() - before
        start(f"--address=127.0.0.1:{port}", "--node-ip-address=127.0.0.2", node="second")
        second = raylets() - before - first
        assert (len(first), len(second)) == (1, 1)
        code = (
            "import sys; from vpkit.book.grids import read_grid; from vpkit.book.sweep import run_points\n"
            f"found = run_points(read_grid(sys.argv[1]), sys.argv[2], cpus=1, gpus=0, address='127.0.0.1:{port}')\n"
            "sys.exit(any(found.values()) and str(found))"
        )
        sweep = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "grid.yaml"), str(out)], stderr=subprocess.PIPE, text=True
        )
        deadline = time.time() + 120
        while not any(out.glob("*/executed.ipynb")) or "second" not in (tmp_path / "visited").read_text():
            assert sweep.poll() is None, sweep.communicate()[1]
            assert time.time() < deadline
            time.sleep(0.1)
        finished = {path: path.stat().st_mtime_ns for path in out.glob("*/executed.ipynb")}
        (pid,) = second
        for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            os.kill(process.pid, signal.SIGKILL)
        _, told = sweep.communicate(timeout=240)
        assert sweep.returncode == 0, told
    finally:
        stop(port, sockets)
    assert all(path.stat().st_mtime_ns == moment for path, moment in finished.items()), "a point was done twice"
    visited = [line.split() for line in (tmp_path / "visited").read_text().splitlines()]
    assert {node for _, node in visited} == {"first", "second"}
    assert sorted({int(seed) for seed, _ in visited}) == list(range(6))
    assert accuracies(out, points) == {seed: 0.5 + seed / 100 for seed in range(6)}
    assert not run_points(points, out, cpus=1, gpus=0, progress=False)[points[0].key]  # as on one machine: nothing left
