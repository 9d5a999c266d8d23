"""A point of a sweep whose process is killed in the middle of its training goes on where it stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from vpkit.book.grids import read_grid
from vpkit.book.sweep import run_point

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = {
    "03_ilm_vp": {"methods": ["BLM", "full fine-tuning"], "image_size": 32, "canvas_size": 64},
    "04_clip_template_mapping": {"methods": ["VP+TP", "VP+TP+LM"], "shifted": []},
    "06_dpt": {"methods": ["VPT"], "pair_methods": ["VPT"], "shots": 1, "shifted": []},
}
CODE = "import sys; from test_cut_off import *; sys.exit(run_point(read_grid(sys.argv[1])[0], sys.argv[2]) != '')"


def results(folder):
    found = [json.loads(path.read_text()) for path in folder.glob("*/*.json")]
    assert found
    return {run["method"]: (run["metrics"], run["history"]) for run in found}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_it_ends_with_the_numbers_of_an_unbroken_run(chapter, tmp_path):
    small = {"dataset": "digits", "n_train": 30, "n_test": 20, "epochs": 3, "device": "cpu"} | CHAPTERS[chapter]
    grid = tmp_path / "grid.yaml"
    grid.write_text(yaml.safe_dump({"notebook": str(ROOT / "notebooks" / f"{chapter}.ipynb"), "parameters": small}))
    (point,) = read_grid(grid)
    assert run_point(point, str(tmp_path / "whole")) == ""
    assert not list((tmp_path / "whole").rglob("checkpoints")), "states are kept after the end"
    command = [sys.executable, "-c", CODE, str(grid), str(tmp_path / "cut")]
    running = subprocess.Popen(command, cwd=Path(__file__).parent, start_new_session=True)
    states = tmp_path / "cut" / point.key / "checkpoints"
    deadline = time.time() + 120
    while not list(states.glob("*.safetensors")):
        assert running.poll() is None, "it was over before it could be killed"
        assert time.time() < deadline
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "cut" / point.key / "executed.ipynb").exists()
    assert run_point(point, str(tmp_path / "cut")) == ""
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
