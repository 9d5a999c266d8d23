"""Each chapter as Colab runs it: an environment without vpkit, `google.colab` loaded, the package from a git remote.

The numbers are those of `make smoke`, to the last bit: same seed, same machine. What Colab brings along (torch and the
rest) is lent by the environment of the tests; vpkit itself is not.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bare_environment import bare_python

ROOT = Path(__file__).resolve().parents[3]
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
# Colab's own module only has to be there; what imports it asks for more than we could imitate. And a chapter has to do
# without any network: pip, which installs the package, is another process.
OFFLINE = (ROOT / "tests" / "integration" / "offline" / "sitecustomize.py").read_text()
STARTUP = f"{OFFLINE}\nimport sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')\n"


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """Environment variables under which the kernel `colab` is a bare one."""
    folder = tmp_path_factory.mktemp("colab")
    python = bare_python(folder / "bare")
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "colab.py").write_text(STARTUP)
    spec = folder / "jupyter" / "kernels" / "colab"
    spec.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Colab", "language": "python"}))
    environment = {**os.environ, "IPYTHONDIR": str(folder / "ipython"), "JUPYTER_PATH": str(folder / "jupyter")}
    environment.pop("PYTHONPATH", None)
    asks = "import urllib.request; urllib.request.urlopen('http://192.0.2.1', timeout=2)"
    guarded = subprocess.run([python, "-c", STARTUP + asks], env=environment, capture_output=True)
    assert b"asked for the network: 192.0.2.1" in guarded.stderr
    return environment


@pytest.mark.parametrize("name", [path.name for path in CHAPTERS])
def test_a_chapter_installs_what_it_needs_and_runs(name, remote, colab, tmp_path):
    parameters = remote / "vpkit" / "data" / "params" / "smoke" / name.replace(".ipynb", ".yaml")
    command = [sys.executable, "-m", "papermill", remote / "notebooks" / name, tmp_path / "out.ipynb", "-k", "colab"]
    finished = subprocess.run(
        [*command, "-f", parameters, "--no-progress-bar"],
        cwd=tmp_path, env={**colab, "VPKIT_RESULTS": str(tmp_path / "runs")}, capture_output=True, text=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "vpkit 0" in (tmp_path / "out.ipynb").read_text()
    same_results(ROOT / "_build" / "smoke" / "results" / name.removesuffix(".ipynb"), tmp_path / "runs")


def same_results(first: Path, second: Path) -> None:
    """`make smoke` ran the same parameters: metrics and histories have to be equal to the last bit."""
    if not first.exists():
        return  # this test was run alone, or the chapter trains nothing
    files = sorted(path.name for path in first.iterdir())
    assert files == sorted(path.name for path in second.iterdir())
    for file in files:
        kept = ("method", "parameters", "metrics", "history")
        one, other = (json.loads((folder / file).read_text()) for folder in (first, second))
        assert [one[key] for key in kept] == [other[key] for key in kept], file
