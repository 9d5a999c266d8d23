"""A copy of this working tree as a git repository, and an environment that has everything but vpkit."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bare_environment import bare_python

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def remote(tmp_path_factory):
    """A git repository of this working tree, whose chapters install vpkit from it."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: there is nothing to install from")
    folder = tmp_path_factory.mktemp("remote")
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    subprocess.run([sys.executable, ROOT / "tools/links.py", "--root", folder, "--url", f"file://{folder}"], check=True)
    git = ["git", "-c", "user.name=vpkit", "-c", "user.email=vpkit@localhost", "-c", "init.defaultBranch=main"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "as it is"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def bare(tmp_path):
    """The python of a new environment; the packages of the tests are lent to it, vpkit is not."""
    return bare_python(tmp_path / "bare")
