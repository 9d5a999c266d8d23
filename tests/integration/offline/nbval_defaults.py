"""A pytest plugin for chapters under nbval: the longest first, each with a folder of its own for what it finds."""

import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TIMES = ROOT / "benchmarks" / "results" / "chapters.json"
sys.path.insert(0, str(ROOT / "tools"))
from build_live import LIVE_CHAPTERS  # noqa: E402


def pytest_collection_modifyitems(items):
    known = json.loads(TIMES.read_text())["chapters"]
    items.sort(key=lambda item: -known.get(item.path.stem, {"core_seconds": 0})["core_seconds"])  # stable


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Before nbval starts the kernel, which inherits this."""
    os.environ["VPKIT_RESULTS"] = str(ROOT / "_build" / "defaults" / item.path.stem)
    os.environ.pop("VPKIT_CHECKPOINTS", None)
    if item.path.stem in LIVE_CHAPTERS:  # what it learns goes into the page Try it
        os.environ["VPKIT_CHECKPOINTS"] = str(ROOT / "_build" / "defaults" / "checkpoints" / item.path.stem)
