"""What the chapters are run with: their first and last lines, results, grids of runs, tables beside the papers'.

The only room that knows of notebooks; no other imports it.
"""

from vpkit.book.results import load_paper_results, load_runs, load_study, save_run
from vpkit.book.session import save_table, start

__all__ = ["load_paper_results", "load_runs", "load_study", "save_run", "save_table", "start"]
