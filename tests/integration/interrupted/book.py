"""`make book` without the installation: a book of one short chapter, run and built. Killed at a random moment."""

import subprocess
import sys
from pathlib import Path
from time import perf_counter

print("ready", flush=True)
started = perf_counter()
subprocess.run([sys.executable, "tools/build_book.py"], check=True, capture_output=True)
page = Path("_build/book/_build/html/notebooks/01_stub.html").read_text(encoding="utf-8")
print(perf_counter() - started)
print(page.count("the stub ran to its end"))
