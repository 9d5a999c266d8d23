"""The package as a whole: what it imports, what importing it does, what it says about itself."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import vpkit

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "vpkit").rglob("*.py"))


def imported(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vpkit"):
            found.add(node.module)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("vpkit")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_documented_and_named_for_what_they_hold(path):
    assert ast.get_docstring(ast.parse(path.read_text()))
    assert path.stem not in ("utils", "helpers", "core", "base", "misc")


FLOORS = (  # a room imports from the floors below it, and from itself
    {"devices", "downloads", "files", "interfaces", "imagenet_names"},
    {"datasets", "models", "mappings", "training"},
    {"prompts", "plots"},
    {"methods"},
    {"analysis", "tasks"},
    {"book"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(name):
    return name.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    here = path.relative_to(ROOT / "vpkit").with_suffix("").parts[0]
    if here == "__init__":
        return
    rooms = {room_of(name) if "." in name else "vpkit itself" for name in imported(path)}
    wrong = {room for room in rooms - {here} if FLOOR.get(room, 99) >= FLOOR[here]}
    assert not wrong, f"{here} is on floor {FLOOR[here] + 1} and imports {wrong}"


def test_no_two_files_import_each_other_directly_or_round_a_corner():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES
    }
    left = {name: imported(path) & set(modules) - {name} for name, path in modules.items()}
    while leaves := [name for name, needs in left.items() if not needs & set(left)]:
        for name in leaves:
            del left[name]
    assert not left, f"in a circle, or above one: {sorted(left)}"


def test_public_functions_are_documented():
    for name in vpkit.__all__:
        value = getattr(vpkit, name)
        assert not callable(value) or value.__doc__, name


def test_importing_opens_no_connection_and_touches_no_gpu():
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise OSError('network')\n"
        "socket.socket.connect = refuse\n"
        "import sys, vpkit, torch\n"
        "assert not torch.cuda.is_initialized()\n"
        # each of these takes a quarter of a second or more, and is only needed by some functions
        "slow = {'torchvision', 'sklearn', 'scipy.optimize', 'scipy.ndimage', 'pandas', 'open_clip',"
        "        'matplotlib.pyplot', 'seaborn', 'ipywidgets'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
        "assert all(hasattr(vpkit, name) for name in vpkit.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    "asks",
    ["socket.socket().connect(('192.0.2.1', 80))", "urllib.request.urlopen('http://example.org', timeout=2)"],
)
def test_the_default_chapters_run_without_a_network(asks):
    recipe = (ROOT / "Makefile").read_text().split("\nnotebooks:")[1].split("\n\n")[0]
    offline, nbval = (
        recipe.index("PYTHONPATH=$(CURDIR)/tests/integration/offline $(SIDE_BY_SIDE)"),
        recipe.index("--nbval-lax"),
    )
    assert "\n" not in recipe[offline:nbval].replace("\\\n", ""), "one command"
    guarded = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "tests" / "integration" / "offline"),
    }  # a kernel gets it from who starts it
    code = f"import socket, urllib.request; {asks}"
    finished = subprocess.run([sys.executable, "-c", code], env=guarded, capture_output=True, text=True)
    assert "asked for the network" in finished.stderr


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert vpkit.__version__ == project["version"] == metadata.version("vpkit")
    assert f"version: {project['version']}" in (ROOT / "CITATION.cff").read_text()


def test_constraints_are_exact_and_name_no_address():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.\-]+==[\w.+!\-]+", line) for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    assert {"torch", "torchvision", "open-clip-torch", "jupyter-book", "papermill", "nbval"} <= pinned


def test_no_code_reads_outside_the_package_by_a_fixed_path():
    for path in [*MODULES, *(ROOT / "tools").glob("*.py")]:
        assert not re.search(r"/root/|/home/", path.read_text()), path


@pytest.mark.slow
@pytest.mark.parametrize(
    "start", [["-c", "import vpkit"], ["-m", "vpkit.tasks.cli", "--help"], ["-m", "vpkit.book.sweep", "--help"]]
)
@pytest.mark.parametrize("own", ["", "ACTIVE"])
def test_openmp_is_loaded_with_threads_that_sleep_unless_the_user_says_otherwise(start, own):
    asked = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    asked |= {"OMP_DISPLAY_ENV": "verbose"} | ({"OMP_WAIT_POLICY": own} if own else {})
    said = subprocess.run([sys.executable, *start], env=asked, capture_output=True, text=True, check=True).stderr
    spins = {int(count) for count in re.findall(r"GOMP_SPINCOUNT = '(\d+)'", said)}
    if not spins:
        pytest.skip("this build of torch has an OpenMP that does not say how it was set up")
    assert (spins == {0}) == (own == "")  # torch alone: 300,000
