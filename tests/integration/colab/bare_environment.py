"""An environment that has every package of the tests but vpkit."""

import subprocess
import sys
import sysconfig
from pathlib import Path


def bare_python(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    own = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    # .pth files in what is lent, and so an editable vpkit, are not read
    (Path(own) / "lent.pth").write_text(sysconfig.get_paths()["purelib"])
    found = subprocess.run([python, "-c", "import torch, vpkit"], cwd=folder, capture_output=True)
    assert b"No module named 'vpkit'" in found.stderr
    return python
